"""Tells of each difference whether it changes what becomes of a packet: where it goes, its mark, whether it is dropped.

What is not shown to change nothing counts as a change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Final

from lab.rules.dump import Line
from lab.rules.normal import Item, Part, are_even, items
from lab.rules.side import Place, Side, bare

if TYPE_CHECKING:
    from lab.rules.dump import Dump

_MANY: Final = 300  # rules: of a longer chain with another order each pair would take too long


class Effect(StrEnum):
    """What a difference changes."""

    TRAFFIC = "traffic"
    """Where a packet goes, its mark, or whether it is dropped."""
    COMMENT = "comment"
    FORM = "form"
    """It says the same by other chains' names."""
    IDLE = "idle"
    """It does nothing: it leads to where nothing happens, or is a comment alone."""
    ORDER = "order"
    """Rules in another order, none of which a packet can tell."""
    UNUSED = "unused"
    """No packet comes there."""


class Kind(StrEnum):
    """How the node's rules differ from kube-proxy's."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Pair:
    """What one side has and the other has not, or not so.

    :param wanted: kube-proxy's; None where it is extra.
    :param given: the node's; None where it is missing.
    """

    kind: Kind
    place: Place
    wanted: Item | None
    given: Item | None


class Judge:
    """Judges the differences between two dumps."""

    def __init__(self, expected: Dump, found: Dump) -> None:
        self.expected, self.found = Side(expected), Side(found)

    def effects(self, pairs: Sequence[Pair]) -> list[Effect]:
        """Return the effect of each pair; those of a container stand together."""
        shared = self.expected.dump.containers.keys() & self.found.dump.containers.keys()
        # What a packet comes to by itself has its counterpart in the other side's having none.
        shared |= self.expected.starts | self.found.starts
        forms = _Forms(self.expected, self.found)
        effects: list[Effect | None] = []
        led: tuple[list[Place], list[Place]] = [], []
        for place, together in groupby(pairs, key=lambda pair: pair.place):
            own = list(together)
            if place not in shared:
                effects += [None] * len(own)
                continue
            # What one side says in other words, the other lacks.
            both = any(pair.wanted for pair in own) and any(pair.given for pair in own)
            for pair in own:
                effect = self._of_shared(pair, forms if both else None)
                effects.append(effect)
                if effect is Effect.TRAFFIC:
                    sides = (self.expected, self.found)
                    for side, item, places in zip(sides, (pair.wanted, pair.given), led, strict=True):
                        if item:
                            places.extend(_targets(side, place, item))
        # A chain that one side has is as good as the other's of another name, unless what leads there differs.
        reached = [
            side.reached(places, frozenset(side.dump.containers.keys() - shared))
            for side, places in zip((self.expected, self.found), led, strict=True)
        ]
        return [effect or self._of_own(pair, reached) for pair, effect in zip(pairs, effects, strict=True)]

    def _of_own(self, pair: Pair, reached: Sequence[AbstractSet[Place]]) -> Effect:
        """Judge what is in a container that one side alone has.

        :param reached: of either side, where something leads that differs.
        """
        missing = pair.kind is Kind.MISSING
        side, led_to = (self.expected, reached[0]) if missing else (self.found, reached[1])
        item = pair.wanted or pair.given
        assert item is not None
        if _unused(side, pair.place):
            return Effect.UNUSED
        if _is_idle(side, pair.place, item):
            return Effect.IDLE
        return Effect.TRAFFIC if pair.place in led_to else Effect.FORM

    def _of_shared(self, pair: Pair, forms: _Forms | None) -> Effect:
        """Judge what differs in a container that both sides have.

        :param forms: None where one side has nothing there that the other lacks.
        """
        wanted, given = pair.wanted, pair.given
        if pair.kind is Kind.MOVED:
            return self._of_order(pair)
        if wanted and given and bare(wanted) == bare(given):
            return Effect.COMMENT
        sides = [side for side, item in ((self.expected, wanted), (self.found, given)) if item]
        if all(_unused(side, pair.place) for side in sides):
            return Effect.UNUSED
        acting = [
            (side, item)
            for side, item in ((self.expected, wanted), (self.found, given))
            if item and not _is_idle(side, pair.place, item)
        ]
        if not acting:
            return Effect.IDLE
        like = forms is not None and all(forms.has_like(side, pair.place, item) for side, item in acting)
        return Effect.FORM if like else Effect.TRAFFIC

    def _of_order(self, pair: Pair) -> Effect:
        """Judge by all rules of the chain that act, those that both sides have."""
        place = pair.place
        if all(_unused(side, place) for side in (self.expected, self.found)):
            return Effect.UNUSED
        even = _are_even(place, self.expected, self.found)
        orders = [
            [
                item.parts
                for item in items(side.dump.containers[place], side.dump.mode, even=even)
                if not _is_idle(side, place, item)
            ]
            for side in (self.expected, self.found)
        ]
        common = Counter(orders[0]) & Counter(orders[1])
        wanted, given = ([parts for parts in one if parts in common] for one in orders)
        if wanted == given:
            return Effect.ORDER
        if max(common.values()) > 1 or len(common) > _MANY:
            return Effect.TRAFFIC
        places = {parts: number for number, parts in enumerate(given)}
        turned = ((one, other) for one, other in combinations(wanted, 2) if places[one] > places[other])
        return Effect.ORDER if all(_apart(*pair) for pair in turned) else Effect.TRAFFIC


class _Forms:
    """The rules that one side has in a container in other words than the other."""

    def __init__(self, expected: Side, found: Side) -> None:
        self._sides = expected, found
        self._place: Place | None = None  # one at a time: those of all take much memory
        self._outlined: dict[int, dict[Hashable, list[Item]]] = {}
        self._counted: dict[tuple[int, Hashable], Counter[Hashable]] = {}

    def has_like(self, side: Side, place: Place, item: Item) -> bool:
        """Tell whether the other side does the same as an item, as often."""
        if place != self._place:
            self._place, self._outlined, self._counted = place, {}, {}
        outline = side.outline(place, item)
        if not all(self._like(number, place, outline) for number in (0, 1)):
            return False  # what follows where they lead takes long to find
        form = side.form(place, item)
        own, other = (self._forms(number, place, outline)[form] for number in (0, 1))
        return own == other  # and the one has the item

    def _like(self, number: int, place: Place, outline: Hashable) -> list[Item]:
        if number not in self._outlined:
            side = self._sides[number]
            one = side.dump.containers.get(place)
            by_outline = self._outlined[number] = {}
            even = _are_even(place, *self._sides)
            for item in items(one, side.dump.mode, even=even) if one else ():
                by_outline.setdefault(side.outline(place, item), []).append(item)
        return self._outlined[number].get(outline, [])

    def _forms(self, number: int, place: Place, outline: Hashable) -> Counter[Hashable]:
        key = (number, outline)
        if key not in self._counted:
            side = self._sides[number]
            self._counted[key] = Counter(side.form(place, item) for item in self._like(number, place, outline))
        return self._counted[key]


def _are_even(place: Place, *sides: Side) -> bool:
    return are_even((side.dump.containers.get(place) for side in sides), sides[0].dump.mode)


def _unused(side: Side, place: Place) -> bool:
    return place not in side.used


def _is_idle(side: Side, place: Place, item: Item) -> bool:
    kind = side.dump.containers[place].kind
    if item.text == f"({kind})":  # it is there: what it does, its rules do
        return place in side.idle
    return not item.keyed and side.does_nothing(place, item.text)


def _targets(side: Side, place: Place, item: Item) -> list[Place]:
    return side.targets(side.dump.containers[place], Line(item.text, item.line))


def _apart(one: Iterable[Part], other: Iterable[Part]) -> bool:
    """Tell whether no packet can tell in which order two rules of iptables stand."""
    mine, theirs = ({part[0]: part for part in parts if part[0] in ("-d", "-p", "-j")} for parts in (one, other))
    if mine.get("-j") == theirs.get("-j") and len(mine.get("-j", ())) > 0:
        return True
    for key, ending in (("-d", ("/32", "/128")), ("-p", ("",))):
        values = [parts.get(key, ("", ""))[1] for parts in (mine, theirs)]
        if all(value and value.endswith(ending) for value in values) and values[0] != values[1]:
            return True
    return False
