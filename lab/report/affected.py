# SPDX-License-Identifier: MIT
"""Whom the bug hits, and what helps: the one place where that is said, of one kernel or of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lab.evidence.judgement import Judgement
from lab.report.tone import Tone, tone_of
from lab.results.matrix import Column, Matrix
from lab.results.places import place
from lab.results.result import Tally
from lab.verdict import Outcome

#: The names of the case that the first answer speaks of, and of what stands for no fix.
HEADLINE: Final = "beyond-window"
NO_FIX: Final = "none"
_REGRESSION: Final = "upstream-regression"

# How the names of controls end: what resets a connection in one of them speaks against the trial and not the node.
_CONTROLS: Final = ("in-window", "without-nat")

# A client that begins again was reset as well. What the packet itself ended (killed) is nobody's fault.
_RESETS: Final = frozenset({Outcome.RESET, Outcome.RETRIED})


@dataclass(frozen=True)
class Remark:
    """One sentence below the table.

    :param console: what a guest's console said last, to be shown with it.
    """

    text: str
    tone: Tone
    console: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Answer:
    """What one case came to on one kernel, in one place.

    :param words: before the colon.
    :param rest: behind the kernels and the place.
    """

    words: str
    place: str
    rest: str
    tone: Tone


def answers(matrix: Matrix) -> Iterator[Remark]:
    """Report on which kernels and nodes connections are reset, by which cases, and which of the fixes prevent it.

    A case that is named in none of the sentences was not tried without a fix, or nobody can say what came of it.
    """
    kernels: dict[str, dict[_Answer, list[str]]] = {}
    for column in matrix.columns:
        for case, answer in _of_column(column):
            kernels.setdefault(case, {}).setdefault(answer, []).append(column.name)
    cases: dict[tuple[_Answer, tuple[str, ...]], list[str]] = {}
    for case, its in kernels.items():
        for answer, labels in its.items():
            cases.setdefault((answer, tuple(labels)), []).append(case)
    for (answer, its_labels), names in cases.items():
        words = answer.words.format(", ".join(names))
        yield Remark(f"{words}: on Linux {listed(its_labels)}, {answer.place}{answer.rest}.", answer.tone)


def regression(matrix: Matrix) -> Iterator[Remark]:
    """Report on which kernels upstream's own test of its fix proves something."""
    found: dict[str, list[str]] = {}
    for column in matrix.columns:
        for tally in column.report.tallies if column.report else ():
            sample = tally.sample
            if (tally.trial.case, tally.trial.fix) != (_REGRESSION, NO_FIX) or sample is None:
                continue
            judgement = sample.verdict.judgement
            if judgement is Judgement.INVALID:
                told = "is INVALID on Linux {}, so upstream's test means what it says there."
            elif judgement is not None and sample.verdict.outcome is Outcome.DELIVERED:
                told = (
                    f"is not INVALID on Linux {{}} but {judgement}: let through and translated. So upstream's test"
                    " passes there with every fix off, and proves nothing."
                )
            else:
                continue
            labels = found.setdefault(told, [])
            if column.name not in labels:
                labels.append(column.name)
    for told, labels in found.items():
        text = f"Kubernetes' own regression packet (100,000 bytes behind) {told.format(listed(labels))}"
        yield Remark(text, Tone.NOTHING)


def _of_column(column: Column) -> Iterator[tuple[str, _Answer]]:
    """Return what each case says of a kernel, the headline's word first."""
    fixes: dict[tuple[str, str], dict[str, Tally]] = {}
    for tally in column.report.tallies if column.report else ():
        fixes.setdefault((place(tally.trial), tally.trial.case), {})[tally.trial.fix] = tally
    plain = {key: tallies[NO_FIX] for key, tallies in fixes.items() if NO_FIX in tallies}
    hit = {key for key, tally in plain.items() if is_hit(tally)}
    for key in sorted(plain, key=lambda one: one[1] != HEADLINE):
        where, case = key
        whose = "" if fixes[key][NO_FIX].trial.given else "a node of "
        if key in hit:
            cure = _cure(fixes[key])
            if case == HEADLINE:
                rest = f" lets one packet reset a healthy connection; {cure}"
                yield case, _Answer("AFFECTED", f"{whose}{where}", rest, Tone.HARMFUL)
            else:
                rest = f", a healthy connection is reset; {cure}"
                yield case, _Answer("AFFECTED by {}", f"with {where}", rest, Tone.HARMFUL)
        elif case == HEADLINE and held(fixes[key][NO_FIX]):
            # Where another packet does it, the headline's word is about its own packet alone.
            words = "NOT AFFECTED by {}" if hit else "NOT AFFECTED"
            yield case, _Answer(words, f"{whose}{where}", " keeps the connection alive", Tone.FINE)


def is_hit(tally: Tally) -> bool:
    """Return whether a healthy connection was reset: in a control that speaks against the trial and not the node."""
    return bool(came(tally) & _RESETS) and not tally.trial.case.endswith(_CONTROLS)


def came(tally: Tally) -> frozenset[Outcome]:
    """Return the outcomes of a trial that can be believed: not those of a run whose sources disagree."""
    if tally.sample is not None and tally.sample.verdict.disagreements:
        expected = tally.sample.expected
        return frozenset({expected.outcome} if tally.as_expected and expected else ())
    return frozenset(outcome for outcome, _count in tally.outcomes)


def _cure(tallies: dict[str, Tally]) -> str:
    tried = {fix: tally for fix, tally in tallies.items() if fix != NO_FIX and tally.runs}
    if not tried:
        return "no fix was tried"
    helps = [fix for fix, tally in tried.items() if held(tally)]
    return f"{listed(helps, 'or')} prevents it" if helps else "no fix that was tried prevents it"


def held(tally: Tally) -> bool:
    """Return whether the connection lived in every run, and every run came to its end."""
    doubted = tally.sample is None or bool(tally.sample.verdict.disagreements) or bool(tally.failure)
    return not doubted and tally.runs > 0 and all(tone_of(outcome) is Tone.FINE for outcome in came(tally))


def listed(words: Iterable[str], before_last: str = "and") -> str:
    """Return words with commas, and with another word before the last one."""
    *first, last = words
    return f"{', '.join(first)} {before_last} {last}" if first else last
