"""Compares the rules that kube-proxy would write with a dump from a node: chain by chain, rule by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from lab.rules.dump import Container, Dump, table_of
from lab.rules.normal import Item, is_even, items
from lab.words import Family


class Kind(StrEnum):
    """How the node's rules differ from kube-proxy's."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"
    MOVED = "moved"


@dataclass(frozen=True)
class Difference:
    """One difference.

    :param table: as in ``nat``, or ``ip kube-proxy``.
    :param name: of the chain, set or map.
    :param expected: what kube-proxy writes; None where it is extra. ``(chain)`` stands for the chain itself.
    :param found: what the node has; None where it is missing.
    :param line: where ``found`` is in the dump; None where the dump is JSON.
    """

    kind: Kind
    table: str
    name: str
    expected: str | None
    found: str | None
    line: int | None


@dataclass(frozen=True)
class Comparison:
    """The answer.

    :param left_out: what of the dump was not compared, in sentences.
    """

    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the node has kube-proxy's rules."""
        return not self.differences


def compare(expected: Dump, found: Dump) -> Comparison:
    """Compare what kube-proxy would write, saved by a kernel, with what a node of the same proxy mode has."""
    differences: list[Difference] = []
    for place in {**expected.containers, **found.containers}:
        if place[0] not in found.tables:
            continue
        ours, theirs = expected.containers.get(place), found.containers.get(place)
        if not _plainly_equal(ours, theirs):
            even = all(is_even(one, found.mode) for one in (ours, theirs) if one)
            wanted, given = (items(one, found.mode, even=even) if one else [] for one in (ours, theirs))
            differences += _differences(*place, wanted, given)
    return Comparison(tuple(differences), tuple(_left_out(expected, found)))


def _plainly_equal(ours: Container | None, theirs: Container | None) -> bool:
    """Save the work for what was printed alike, which is nearly everything."""
    if ours is None or theirs is None or ours.kind != theirs.kind or len(ours.lines) != len(theirs.lines):
        return False
    if not all(one.text == other.text for one, other in zip(ours.lines, theirs.lines, strict=True)):
        return False
    return {line.text for line in ours.elements} == {line.text for line in theirs.elements}


def _differences(table: str, name: str, wanted: list[Item], given: list[Item]) -> Iterator[Difference]:
    missing, extra = _beyond(wanted, given), _beyond(given, wanted)
    likes: dict[Hashable, list[Item]] = {}
    for item in extra:
        for likeness in item.likenesses():
            likes.setdefault(likeness, []).append(item)
    paired: set[int] = set()
    for item in missing:
        candidates = (like for likeness in item.likenesses() for like in likes.get(likeness, ()))
        other = next((like for like in candidates if id(like) not in paired), None)
        if other is None:
            yield Difference(Kind.MISSING, table, name, item.text, None, None)
        else:
            paired.add(id(other))
            yield Difference(Kind.DIFFERENT, table, name, item.text, other.text, other.line)
    for item in extra:
        if id(item) not in paired:
            yield Difference(Kind.EXTRA, table, name, None, item.text, item.line)
    common = zip(_without(wanted, missing), _without(given, extra), strict=True)
    moved = next((pair for pair in common if pair[0].parts != pair[1].parts), None)
    if moved:
        yield Difference(Kind.MOVED, table, name, moved[0].text, moved[1].text, moved[1].line)


def _beyond(some: list[Item], others: list[Item]) -> list[Item]:
    """Return the items that have no equal among others, each counted as often as it stands."""
    left = Counter(item.parts for item in others)
    result = []
    for item in some:
        if left[item.parts]:
            left[item.parts] -= 1
        else:
            result.append(item)
    return result


def _without(some: list[Item], left_out: list[Item]) -> list[Item]:
    gone = {id(item) for item in left_out}
    return [item for item in some if id(item) not in gone]


def _left_out(expected: Dump, found: Dump) -> Iterator[str]:
    others = Counter(found.others)
    for family in Family:
        if count := others.pop(table := table_of(family), 0):
            rules = f"{count} rule{'s' * (count != 1)}"
            yield f"{rules} of kube-proxy for {family} not compared: {table} (give --family {family} for that)."
    if others:
        places = sorted(others)
        shown = ", ".join(places[:8]) + (f" and {len(places) - 8} more" if len(places) > 8 else "")
        count = sum(others.values())
        yield f"{count} rule{'s' * (count != 1)} of others left out: {shown}."
    for table in sorted({table for table, _ in expected.containers} - found.tables):
        yield f"The dump has no table {table}: not compared."
