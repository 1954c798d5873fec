# SPDX-License-Identifier: MIT
"""Compares the rules that kube-proxy would write with a dump from a node: chain by chain, rule by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, NamedTuple

from lab.kubeproxy.nftables import table_of
from lab.rules.dump import Container, Dump
from lab.rules.effects import Effect, Judge, Kind, Pair
from lab.rules.normal import Item, Part, are_even, is_even, items, rules, without_share
from lab.rules.owners import KUBE_PROXY, UNKNOWN
from lab.rules.side import Place, bare, service_of
from lab.vocabulary import Family, ProxyMode

Key = int
"""What a difference is known by, on whichever side."""

_CHANCE: Final = (
    "Rules of different Services, or of endpoints with equal shares, stand in another order: kube-proxy leaves it to"
    " chance."
)


@dataclass(frozen=True)
class Cause:
    """Something that explains differences: with it they are gone.

    :param setting: what it is about: kube-proxy's flag, where there is one.
    :param sentence: what is otherwise on the node.
    :param cure: what to give, or where to look; empty where there is nothing to do.
    """

    setting: str
    sentence: str
    cure: str


class Difference(NamedTuple):
    """One difference.

    :param table: as in ``nat``, or ``ip kube-proxy``.
    :param name: of the chain, set or map.
    :param expected: what kube-proxy writes; None where it is extra. ``(chain)`` stands for the chain itself.
    :param found: what the node has; None where it is missing.
    :param line: where ``found`` is in the dump; None where the dump is JSON.
    :param effect: what it changes.
    :param service: the Service that it is about, as ``namespace/name``; None where it is about none or several.
    :param note: what it is, where that is known: what a release or another mode left behind.
    :param cause: which of the comparison's causes explains it, from 0.
    """

    kind: Kind
    table: str
    name: str
    expected: str | None
    found: str | None
    line: int | None
    effect: Effect = Effect.TRAFFIC
    service: str | None = None
    note: str | None = None
    cause: int | None = None

    def explained(self, note: str | None, cause: int | None) -> Difference:
        """Return it with what explains it."""
        return Difference(*self[:-2], note, cause)


Explain = Callable[[Difference, "tuple[Key, ...]"], "tuple[str | None, int | None]"]
"""Returns a difference's note and its cause. With it come the keys by which :func:`unlike` knows its sides."""


@dataclass(frozen=True)
class Comparison:
    """The answer.

    :param left_out: what of the dump was not compared, in sentences.
    :param notes: what was seen that is no difference, in sentences.
    :param causes: what explains differences.
    :param fitting: the releases that leave no difference once the causes are taken into account; where there are no
        differences, the one that was compared.
    :param chosen: the release was chosen by what fits, so that all that do are known.
    :param nearest: the release that leaves the fewest, where none fits.
    :param left: how many it leaves.
    :param partial: only a part of the node's rules was there to be compared.
    """

    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    fitting: tuple[str, ...] = ()
    nearest: str | None = None
    left: int = 0
    chosen: bool = False
    partial: bool = False

    @property
    def same(self) -> bool:
        """Whether the node has kube-proxy's rules."""
        return not self.differences


def compare(expected: Dump, found: Dump, explain: Explain | None = None, *, numbered: bool = True) -> Comparison:
    """Compare what kube-proxy would write, saved by a kernel, with what a node of the same proxy mode has.

    :param explain: says what explains a difference, while it is made: half a million take much memory.
    :param numbered: whether the node's lines have numbers that a person can look up.
    """
    comparing = Comparing(expected, found, explain, numbered=numbered)
    differences = tuple(comparing.differences())
    return Comparison(differences, tuple(_left_out(expected, found)), comparing.notes)


def alike(expected: Dump, found: Dump) -> Comparison | None:
    """Return what :func:`compare` does where nothing differs, else None as soon as something does."""
    comparing = Comparing(expected, found)
    if comparing.differ():
        return None
    return Comparison((), tuple(_left_out(expected, found)), comparing.notes)


class Comparing:
    """Compares two dumps, one place after the other; as :func:`compare` does."""

    def __init__(self, expected: Dump, found: Dump, explain: Explain | None = None, *, numbered: bool = True) -> None:
        self._expected, self._found = expected, found
        self._explain, self._numbered = explain, numbered
        self._judge = Judge(expected, found)
        self._by_chance = False
        self._services: dict[str | None, str | None] = {}  # one of each name

    @property
    def notes(self) -> tuple[str, ...]:
        """What was seen that is no difference, in sentences."""
        return (*self._found.notes, *([_CHANCE] if self._by_chance else []))

    def differ(self) -> bool:
        """Report whether anything differs, and stop there."""
        for _, ours, theirs in _unlike(self._expected, self._found):
            wanted, given = self._contents(ours, theirs)
            if [item.parts for item in wanted] != [item.parts for item in given]:
                return True
        return False

    def differences(self) -> Iterator[Difference]:
        """Return the differences, in the order of their places.

        What one side alone has is judged last, by where the rest leads.
        """
        places: dict[Place, list[Difference] | None] = {}
        for place, ours, theirs in _unlike(self._expected, self._found):
            places[place] = None
            if self._judge.is_shared(place):
                wanted, given = self._contents(ours, theirs)
                pairs = list(_pairs(place, wanted, given))
                effects = self._judge.of_shared(pairs, (wanted, given))
                places[place] = list(map(self._difference, pairs, effects))
        for place in list(places):
            shared = places.pop(place)
            yield from self._of_one_side(place) if shared is None else shared

    def _contents(self, ours: Container | None, theirs: Container | None) -> tuple[list[Item], list[Item]]:
        mode = self._found.mode
        even = are_even((ours, theirs), mode)
        wanted, given = (items(one, mode, even=even) if one else [] for one in (ours, theirs))
        self._by_chance = self._by_chance or (mode is ProxyMode.IPTABLES and _reordered(ours, theirs, wanted, given))
        return wanted, given

    def _of_one_side(self, place: Place) -> Iterator[Difference]:
        ours = self._expected.containers.get(place)
        one, mode = ours or self._found.containers[place], self._found.mode
        kind = Kind.MISSING if ours else Kind.EXTRA
        content = items(one, mode, even=is_even(one, mode))
        for item, effect in zip(content, self._judge.of_one_side(kind, place, content), strict=True):
            yield self._difference(Pair(kind, place, item if ours else None, None if ours else item), effect)

    def _difference(self, pair: Pair, effect: Effect) -> Difference:
        wanted, given = pair.wanted, pair.given
        item, side = (wanted, self._judge.expected) if wanted else (given, self._judge.found)
        assert item is not None
        service = service_of(item.text)
        if service is None and side.dump.containers[pair.place].kind != "jumps":
            services = side.services[pair.place]
            service = next(iter(services)) if len(services) == 1 else None
        difference = Difference(
            pair.kind,
            *pair.place,
            wanted.text if wanted else None,
            given.text if given else None,
            given.line if given and self._numbered else None,
            effect,
            self._services.setdefault(service, service),
        )
        note, cause = self._explain(difference, _keys(pair)) if self._explain else (None, None)
        return difference if note is None and cause is None else difference.explained(note, cause)


def _unlike(expected: Dump, found: Dump) -> Iterator[tuple[Place, Container | None, Container | None]]:
    """Return what was not printed alike, of the tables that the dump has."""
    for place in {**expected.containers, **found.containers}:
        ours, theirs = expected.containers.get(place), found.containers.get(place)
        if place[0] in found.tables and not _plainly_equal(ours, theirs):
            yield place, ours, theirs


def _reordered(ours: Container | None, theirs: Container | None, wanted: Sequence[Item], given: Sequence[Item]) -> bool:
    """Report whether the same rules stand in another order on the two sides."""
    if ours is None or theirs is None or [one.parts for one in wanted] != [one.parts for one in given]:
        return False
    orders = ([without_share(item.parts) for item in rules(one)] for one in (ours, theirs))
    return next(orders) != next(orders)


def _keys(pair: Pair) -> tuple[Key, ...]:
    if pair.kind is Kind.MOVED:
        return (_key(pair.place, pair.kind),)
    sides = ((Kind.MISSING, pair.wanted), (Kind.EXTRA, pair.given))
    return tuple(_key(pair.place, kind, item.parts) for kind, item in sides if item)


def _key(place: Place, kind: Kind, parts: tuple[Part, ...] = ()) -> Key:
    """Return what a difference is known by: a number takes less memory than its words, and no two get the same.

    Of 64 bits, half a million differences have a common one once in a hundred million comparisons.
    """
    return hash((place, kind, parts))


def unlike(expected: Dump, found: Dump, *, uncommented: bool = False) -> Counter[Key]:
    """Return what :func:`compare` would find, each with how often, by keys alone: it takes less time.

    :param uncommented: whatever the comments are.
    """
    result: Counter[Key] = Counter()
    for place, kind, beyond in _unlike_parts(expected, found, uncommented=uncommented):
        for parts, count in beyond.items():
            result[_key(place, kind, parts)] += count
    return result


def unlike_places(
    expected: Dump, found: Dump, *, uncommented: bool = False, known: Counter[Key] | None = None
) -> Iterator[Place]:
    """Give, one after the other, the places where :func:`unlike` finds something.

    :param known: what :func:`unlike` found elsewhere: only places where there is more.
    """
    less = known or Counter()
    places = (
        place
        for place, kind, beyond in _unlike_parts(expected, found, uncommented=uncommented)
        if any(count > less[_key(place, kind, parts)] for parts, count in beyond.items())
    )
    return (place for place, _ in groupby(places))


def _unlike_parts(
    expected: Dump, found: Dump, *, uncommented: bool
) -> Iterator[tuple[Place, Kind, Counter[tuple[Part, ...]]]]:
    for place, ours, theirs in _unlike(expected, found):
        if ours is None or theirs is None:
            one = ours or theirs
            content = items(one, found.mode, even=is_even(one, found.mode)) if one else ()
            parts = [bare(item) if uncommented else item.parts for item in content]
            if parts:
                yield place, Kind.MISSING if ours else Kind.EXTRA, Counter(parts)
            continue
        even = are_even((ours, theirs), found.mode)
        sides = [items(one, found.mode, even=even) for one in (ours, theirs)]
        wanted, given = ([bare(item) if uncommented else item.parts for item in some] for some in sides)
        counted, other = Counter(wanted), Counter(given)
        if counted == other:
            if wanted != given:
                yield place, Kind.MOVED, Counter([()])
            continue
        for kind, beyond in ((Kind.MISSING, counted - other), (Kind.EXTRA, other - counted)):
            if beyond:
                yield place, kind, beyond


def sharing(expected: Dump, found: Dump) -> Dump:
    """Return what kube-proxy would write with the node's own containers where they are printed alike: to save memory.

    Numbers of lines are then the node's; those of what is expected are never told.
    """
    containers = {
        place: found.containers[place] if _plainly_equal(one, found.containers.get(place)) else one
        for place, one in expected.containers.items()
    }
    return replace(expected, containers=containers)


def _plainly_equal(ours: Container | None, theirs: Container | None) -> bool:
    """Save the work for what was printed alike, which is nearly everything."""
    if ours is theirs:
        return True
    if ours is None or theirs is None or ours.kind != theirs.kind or len(ours.lines) != len(theirs.lines):
        return False
    if not all(one.text == other.text for one, other in zip(ours.lines, theirs.lines, strict=True)):
        return False
    return {line.text for line in ours.elements} == {line.text for line in theirs.elements}


def _pairs(place: Place, wanted: list[Item], given: list[Item]) -> Iterator[Pair]:
    missing, extra = beyond(wanted, given), beyond(given, wanted)
    likes: dict[Hashable, list[Item]] = {}
    for item in extra:
        for likeness in item.likenesses():
            likes.setdefault(likeness, []).append(item)
    paired: set[int] = set()
    for item in missing:
        candidates = (like for likeness in item.likenesses() for like in likes.get(likeness, ()))
        other = next((like for like in candidates if id(like) not in paired), None)
        if other is None:
            yield Pair(Kind.MISSING, place, item, None)
        else:
            paired.add(id(other))
            yield Pair(Kind.DIFFERENT, place, item, other)
    for item in extra:
        if id(item) not in paired:
            yield Pair(Kind.EXTRA, place, None, item)
    common = zip(_without(wanted, missing), _without(given, extra), strict=True)
    moved = next((pair for pair in common if pair[0].parts != pair[1].parts), None)
    if moved:
        yield Pair(Kind.MOVED, place, *moved)


def beyond(some: list[Item], others: list[Item]) -> list[Item]:
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


def _whose(found: Dump) -> str:
    """Return how many rules each owner has, the most first, where any of them is known."""
    known = {owner: count for owner, count in found.owners.most_common() if owner not in (UNKNOWN, KUBE_PROXY)}
    said = [f"{count} of {owner}" for owner, count in known.items()]
    if (unknown := found.owners[UNKNOWN]) and said:
        said.append(f"{unknown} of unknown origin")
    return f" ({', '.join(said)})" if said else ""


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
        yield f"{count} rule{'s' * (count != 1)} of others left out{_whose(found)}: {shown}."
    for table in sorted({table for table, _ in expected.containers} - found.tables):
        yield f"The dump has no table {table}: not compared."
