# SPDX-License-Identifier: MIT
"""A node of the user's own: the answer, what each fix does there, and what to type for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from lab.evidence.judgement import Judgement
from lab.evidence.walk import Role
from lab.report.affected import HEADLINE, NO_FIX, Remark, came, held, is_hit, listed
from lab.report.decided import decided
from lab.report.tone import Tone, tone_of
from lab.results.places import node
from lab.results.result import Report, Tally
from lab.rules.frame import PART
from lab.verdict import Outcome
from lab.vocabulary import Family

#: What came of each case, by its name.
_Cases: TypeAlias = Mapping[str, Tally]


def answer(report: Report) -> Iterator[Remark]:
    """Report whether the node has the bug, in one line a family: by the headline's packet, which any peer may send."""
    for tallies in _by_family(report).values():
        plain = tallies.get(NO_FIX, {})
        headline = plain.get(HEADLINE)
        if headline is None or not headline.runs:
            continue
        where = f"on Linux {report.kernel}, {node(headline.trial)}"
        if is_hit(headline):
            words = f"{where} lets one packet that is out of the window reset a healthy connection{_rule(headline)}"
            if part := _missing(report):
                yield Remark(f"NOT KNOWN: as far as these rules tell, {words}; but {part}", Tone.HARMLESS)
            else:
                yield Remark(f"AFFECTED: {words}.", Tone.HARMFUL)
        elif held(headline):
            words = f"NOT AFFECTED: {where} keeps a healthy connection alive{_rule(headline) or _unruled(headline)}"
            part = _missing(report)
            yield Remark(f"{words}; but {part}" if part else f"{words}.", Tone.FINE)
        elif came(headline) == {Outcome.LEAKED}:
            words = f"NOT AFFECTED: {where} keeps a healthy connection alive, though the packet comes to the client"
            yield Remark(f"{words} untranslated{_rule(headline)}{_answered(headline)}.", Tone.HARMLESS)
        else:
            yield Remark(f"NOT KNOWN: {where}: {_unknown(headline)}", Tone.HARMLESS)


def _missing(report: Report) -> str:
    """Return what of the node's rules was not given; empty where nothing is known to be missing."""
    parts = (note.partition(PART) for note in report.notes)
    return " ".join(f"{source}is only a part of what {rest}" for source, part, rest in parts if part).replace(
        ": is", " is"
    )


def _answered(tally: Tally) -> str:
    """Return which rule keeps the client's RST from the server, where one does."""
    walks = tally.sample.timeline.walks if tally.sample else ()
    fates = dict.fromkeys(one.fate.words for one in walks if one.role is Role.RESET and one.fate)
    return f"; its RST is dropped by {listed(fates)}" if fates else ""


def _unruled(tally: Tally) -> str:
    """Return why a connection lived where it was no rule's doing."""
    if tally.sample and tally.sample.verdict.judgement is Judgement.ACCEPTED:
        return ": the packet is not INVALID there, as net.netfilter.nf_conntrack_tcp_be_liberal=1 has it"
    return f": {_decided(tally)}"


def _unknown(tally: Tally) -> str:
    """Return why nobody can say whether the node is affected."""
    if tally.sample and tally.sample.verdict.outcome is Outcome.REFUSED:
        fates = dict.fromkeys(walk.fate.words for walk in tally.sample.timeline.walks if walk.fate)
        by = f": dropped by {listed(fates)}" if fates else ""
        return f"no connection by the Service comes about there{by}. --service asks another one."
    if outcomes := came(tally):
        return f"what came of {HEADLINE} is {', '.join(outcomes)}."
    doubts = tally.sample.verdict.disagreements if tally.sample else ()
    said = "; ".join(doubts) or tally.failure or "it did not come to its end"
    return f"{HEADLINE} cannot be believed: {said}."


def effects(report: Report) -> Iterator[Remark]:
    """Report which cases reset connections there and how, and what each fix that was tried does about it."""
    for family, tallies in _by_family(report).items():
        plain = tallies.get(NO_FIX, {})
        ran = {case: tally for case, tally in plain.items() if tally.runs}
        hit = [case for case, tally in ran.items() if is_hit(tally)]
        by = f"by {family}: " if len(report.behaviours) > 1 else ""
        if hit:
            yield Remark(f"{by}reset in {len(hit)} of {_cases(len(ran))}:", Tone.HARMFUL)
            reasons: dict[str, list[str]] = {}
            for case in hit:
                reasons.setdefault(_decided(ran[case]), []).append(case)
            yield from (Remark(f"  {words}: {', '.join(cases)}", Tone.HARMFUL) for words, cases in reasons.items())
        elif ran:
            yield Remark(f"{by}reset in none of {_cases(len(ran))}.", Tone.FINE)
        for fix, cases in tallies.items():
            if fix != NO_FIX and (words := _effect(ran, cases)):
                yield Remark(f"{by}{fix}: {words}.", Tone.NOTHING)


def remedies(report: Report) -> Iterator[Remark]:
    """Report how each fix that cures something is made on the node, and how it stays."""
    cures = {
        fix
        for tallies in _by_family(report).values()
        for fix, cases in tallies.items()
        if any(_is_cured(tallies.get(NO_FIX, {}).get(case), tally) for case, tally in cases.items())
    }
    shown = [one for one in report.remedies if one.fix in cures]
    if shown:
        yield Remark("On the node, as root (the lab changes nothing there):", Tone.NOTHING)
    for one in shown:
        yield Remark(f"  # {one.fix}", Tone.NOTHING)
        yield from (Remark(f"  {command}", Tone.NOTHING) for command in one.commands)
        if one.lasting:
            yield Remark(f"  # to stay: {one.lasting}", Tone.NOTHING)


def _by_family(report: Report) -> dict[Family, dict[str, dict[str, Tally]]]:
    found: dict[Family, dict[str, dict[str, Tally]]] = {}
    for tally in report.tallies:
        trial = tally.trial
        found.setdefault(trial.family, {}).setdefault(trial.fix, {})[trial.case] = tally
    return found


def _effect(plain: _Cases, fixed: _Cases) -> str:
    both = {case: (plain[case], tally) for case, tally in fixed.items() if case in plain and tally.runs}
    cured = [case for case, (before, after) in both.items() if _is_cured(before, after)]
    left = [case for case, (before, after) in both.items() if is_hit(before) and is_hit(after)]
    broken = [case for case, (before, after) in both.items() if _is_broken(before, after)]
    others: dict[str, list[str]] = {}
    for case, (before, after) in both.items():
        if is_hit(before) and case not in (*cured, *left):
            others.setdefault(", ".join(sorted(came(after))) or "not known", []).append(case)
    if not both:
        return ""
    parts = [
        f"cures {_named(cured)}" if cured else "cures nothing",
        *([f"leaves {_named(left)}"] if left else []),
        *(f"makes {outcome} of {_named(cases)}" for outcome, cases in others.items()),
        f"breaks {_named(broken)}" if broken else f"breaks nothing of {_cases(len(both))}",
    ]
    return "; ".join(parts)


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def _named(cases: Sequence[str]) -> str:
    return f"{len(cases)}: {', '.join(cases)}" if len(cases) > 1 else ", ".join(cases)


def _is_cured(before: Tally | None, after: Tally) -> bool:
    return before is not None and is_hit(before) and held(after)


def _is_broken(before: Tally, after: Tally) -> bool:
    return held(before) and after.runs > 0 and any(tone_of(outcome) is Tone.HARMFUL for outcome in came(after))


def _rule(tally: Tally) -> str:
    """Return which rule is to be thanked or blamed, by the kernel's own trace; empty where it is no rule's doing."""
    return "".join(f": {words}" for words in decided(tally.sample.timeline)) if tally.sample else ""


def _decided(tally: Tally) -> str:
    return tally.sample.verdict.decided_by if tally.sample else ""
