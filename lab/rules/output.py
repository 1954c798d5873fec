# SPDX-License-Identifier: MIT
"""The differences between kube-proxy's rules and a node's: what matters first."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from lab.rules.effects import Effect, Kind
from lab.rules.other_releases import span
from lab.tones import HARMLESS, NOTABLE, OOPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.rules.diff import Comparison, Difference
    from lab.rules.source import Proxy

_STYLES: Final = {Kind.MISSING: OOPS, Kind.EXTRA: HARMLESS, Kind.DIFFERENT: NOTABLE, Kind.MOVED: NOTABLE}
_EXAMPLES: Final = 5
"""So many differences are shown of those that one cause explains."""

_WITHOUT_EFFECT: Final = {
    Effect.COMMENT: "in comments alone",
    Effect.FORM: "the same by other names",
    Effect.IDLE: "in rules and chains that do nothing",
    Effect.ORDER: "in an order that nothing depends on",
    Effect.UNUSED: "where no packet comes",
}


def table(comparison: Comparison) -> Table | None:
    """Show the differences that change traffic: what each is, where, and in what words on either side.

    Those that nothing explains come first; of others, some of each cause. None where there is none to show.
    """
    shown = [one for one in comparison.differences if one.effect is Effect.TRAFFIC and one.cause is None]
    for number in range(len(comparison.causes)):
        shown += _of_cause(comparison, number)[:_EXAMPLES]
    if not shown:
        return None
    about = any(one.service for one in shown)
    columns = ["", *(["Service"] if about else []), "chain", "rule"]
    drawn = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for difference in shown:
        kind = Text(difference.kind, style=_STYLES[difference.kind])
        place = Text(f"{difference.table} {difference.name}".strip(), overflow="fold")
        rule = Text("\n".join(_sides(difference)), overflow="fold")
        service = [Text(difference.service or "", overflow="fold")] if about else []
        drawn.add_row(kind, *service, place, rule)
    return drawn


def _of_cause(comparison: Comparison, number: int) -> list[Difference]:
    return [one for one in comparison.differences if one.effect is Effect.TRAFFIC and one.cause == number]


def _sides(difference: Difference) -> list[str]:
    place = "the node" if difference.line is None else f"line {difference.line}"
    found = f"{place}: {difference.found}"
    if difference.kind is Kind.MOVED:
        return [f"kube-proxy has here: {difference.expected}", found]
    sides = [difference.expected] if difference.found is None else []
    if difference.found is not None and difference.expected is not None:
        sides.append(f"kube-proxy: {difference.expected}")
    if difference.found is not None:
        sides.append(found)
    if difference.note:
        sides.append(f"({difference.note})")
    return [side for side in sides if side]


def conclusion(comparison: Comparison, proxy: Proxy, source: str) -> list[str]:
    """Return, in a few lines, what was compared, what was not, what explains the differences, and what came out."""
    return [
        *proxy.notes,
        *comparison.left_out,
        *comparison.notes,
        *_without_effect(comparison),
        *_explained(comparison, proxy),
        _result(comparison, proxy, source),
    ]


def _without_effect(comparison: Comparison) -> Iterator[str]:
    """Return, in one line, what changes nothing for a packet."""
    harmless = [one for one in comparison.differences if one.effect is not Effect.TRAFFIC]
    if not harmless:
        return
    left = Counter(one.note for one in harmless if one.note)
    counts = Counter(one.effect for one in harmless if not one.note)
    said = [f"{counts[effect]} {words}" for effect, words in _WITHOUT_EFFECT.items() if counts[effect]]
    said += [f"{count} of {words}" for words, count in left.items()]
    count = f"{len(harmless)} difference{'s' * (len(harmless) != 1)}"
    verb = "changes" if len(harmless) == 1 else "change"
    yield f"{count} {verb} nothing for a packet: {', '.join(said)}."


def _explained(comparison: Comparison, proxy: Proxy) -> Iterator[str]:
    everything = len(comparison.differences)
    for number, cause in enumerate(comparison.causes):
        count = sum(one.cause == number for one in comparison.differences)
        hidden = len(_of_cause(comparison, number)) - _EXAMPLES
        share = f"{count} of {everything} differences" if count < everything else _all_of(everything)
        sentence = cause.sentence
        if cause.cure:
            sentence = f"{sentence.removesuffix('.')} ({cause.cure}){'.' * sentence.endswith('.')}"
        verb = "are" if hidden > 1 else "is"
        shown = (
            f" Of those that change where packets go, {hidden} {verb} not shown (--json has all)." if hidden > 0 else ""
        )
        yield f"{share}: {sentence}{shown}"
    active = sum(bool(one.note) for one in comparison.differences)
    if comparison.fitting and not comparison.same:
        but = f", but for what was left behind ({active})" if active else " then"
        fitting = span(comparison.fitting, proxy.mode)
        verb = "fits" if fitting == comparison.fitting[0] else "fit"
        yield f"{fitting} {verb} without a difference{but}."
    elif comparison.nearest not in (None, proxy.options.release.name):  # else the last line says it
        left = f"{comparison.left} difference{'s' * (comparison.left != 1)}"
        yield f"No release fits: {comparison.nearest} comes nearest, with {left} left."


def _all_of(count: int) -> str:
    return "The difference" if count == 1 else f"All {count} differences"


def _result(comparison: Comparison, proxy: Proxy, source: str) -> str:
    mode = f"({proxy.mode}, {proxy.options.family})"
    if comparison.same and comparison.partial:
        fitting = span(comparison.fitting, proxy.mode) if comparison.chosen else proxy.options.release.label
        return f"What is there of {source} is as kube-proxy {fitting} writes it {mode}."
    if comparison.same and comparison.chosen:
        return f"{source} has the rules of kube-proxy {span(comparison.fitting, proxy.mode)} {mode}."
    whose = f"kube-proxy {proxy.options.release.label} {mode}"
    if comparison.same:
        return f"{source} has the rules of {whose}."
    counts = [(kind, sum(one.kind is kind for one in comparison.differences)) for kind in Kind]
    said = ", ".join(f"{count} {kind}" for kind, count in counts if count)
    changing = sum(one.effect is Effect.TRAFFIC for one in comparison.differences)
    verb = "change" if changing > 1 else "changes"
    effect = f"{changing or 'none'} of them {verb} where packets go"
    if changing == len(comparison.differences):
        effect = "all of them change where packets go" if changing > 1 else "it changes where packets go"
    return f"{source} differs from the rules of {whose}: {said}; {effect}."
