# SPDX-License-Identifier: MIT
"""Tells of each difference whether it changes what becomes of a packet: where it goes, its mark, whether it is dropped.

What is not shown to change nothing counts as a change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from lab.rules.dump import Line
from lab.rules.normal import Item, Part
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


class Pair(NamedTuple):
    """What one side has and the other has not, or not so.

    :param wanted: kube-proxy's; None where it is extra.
    :param given: the node's; None where it is missing.
    """

    kind: Kind
    place: Place
    wanted: Item | None
    given: Item | None


Contents = tuple[Sequence[Item], Sequence[Item]]
"""What a place holds on either side."""


class Judge:
    """Judges the differences between two dumps: first in all that both sides have, then in what one alone has."""

    def __init__(self, expected: Dump, found: Dump) -> None:
        self.expected, self.found = Side(expected), Side(found)
        self._led: tuple[list[Place], list[Place]] = [], []

    @cached_property
    def _shared(self) -> frozenset[Place]:
        shared = self.expected.dump.containers.keys() & self.found.dump.containers.keys()
        # What a packet comes to by itself has its counterpart in the other side's having none.
        return frozenset(shared | self.expected.starts | self.found.starts)

    def is_shared(self, place: Place) -> bool:
        """Report whether both sides have a place, or packets come there by themselves."""
        return place in self._shared

    def of_shared(self, pairs: Sequence[Pair], contents: Contents) -> list[Effect]:
        """Return the effect of each difference in a place that is shared."""
        # What one side says in other words, the other lacks.
        both = any(pair.wanted for pair in pairs) and any(pair.given for pair in pairs)
        forms = _Forms(self.expected, self.found, contents) if both else None
        effects = [self._of_shared(pair, contents, forms) for pair in pairs]
        for pair, effect in zip(pairs, effects, strict=True):
            if effect is Effect.TRAFFIC:
                sides = (self.expected, self.found)
                for side, item, places in zip(sides, (pair.wanted, pair.given), self._led, strict=True):
                    if item:
                        places.extend(_targets(side, pair.place, item))
        return effects

    @cached_property
    def _reached(self) -> list[set[Place]]:
        """Where on either side something leads that differs.

        A chain that one side has is as good as the other's of another name, unless what leads there differs.
        """
        return [
            side.reached(places, frozenset(side.dump.containers.keys() - self._shared))
            for side, places in zip((self.expected, self.found), self._led, strict=True)
        ]

    def of_one_side(self, kind: Kind, place: Place, content: Sequence[Item]) -> list[Effect]:
        """Return the effect of all that is in a place that one side alone has; after all that is shared."""
        number = 0 if kind is Kind.MISSING else 1
        side = (self.expected, self.found)[number]
        if _unused(side, place):
            return [Effect.UNUSED] * len(content)
        acting = Effect.TRAFFIC if place in self._reached[number] else Effect.FORM
        return [Effect.IDLE if _is_idle(side, place, item) else acting for item in content]

    def _of_shared(self, pair: Pair, contents: Contents, forms: _Forms | None) -> Effect:
        """Judge what differs in a container that both sides have.

        :param forms: None where one side has nothing there that the other lacks.
        """
        wanted, given = pair.wanted, pair.given
        if pair.kind is Kind.MOVED:
            return self._of_order(pair.place, contents)
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

    def _of_order(self, place: Place, contents: Contents) -> Effect:
        """Judge by all rules of the chain that act, those that both sides have."""
        if all(_unused(side, place) for side in (self.expected, self.found)):
            return Effect.UNUSED
        orders = [
            [item.parts for item in content if not _is_idle(side, place, item)]
            for side, content in zip((self.expected, self.found), contents, strict=True)
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
    """The rules that one side has in a place in other words than the other."""

    def __init__(self, expected: Side, found: Side, contents: Contents) -> None:
        self._sides, self._contents = (expected, found), contents
        self._outlined: dict[int, dict[Hashable, list[Item]]] = {}
        self._counted: dict[tuple[int, Hashable], Counter[Hashable]] = {}

    def has_like(self, side: Side, place: Place, item: Item) -> bool:
        """Report whether the other side does the same as an item, as often."""
        outline = side.outline(place, item)
        other = 1 if side is self._sides[0] else 0
        if not self._like(other, place, outline):
            return False  # what follows where they lead takes long to find
        form = side.form(place, item)
        own, others = (self._forms(number, place, outline)[form] for number in (1 - other, other))
        return own == others  # and the one has the item

    def _like(self, number: int, place: Place, outline: Hashable) -> list[Item]:
        if number not in self._outlined:
            by_outline = self._outlined[number] = {}
            for item in self._contents[number]:
                by_outline.setdefault(self._sides[number].outline(place, item), []).append(item)
        return self._outlined[number].get(outline, [])

    def _forms(self, number: int, place: Place, outline: Hashable) -> Counter[Hashable]:
        key = (number, outline)
        if key not in self._counted:
            side = self._sides[number]
            self._counted[key] = Counter(side.form(place, item) for item in self._like(number, place, outline))
        return self._counted[key]


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
    """Report whether no packet can tell in which order two rules of iptables stand."""
    mine, theirs = ({part[0]: part for part in parts if part[0] in ("-d", "-p", "-j")} for parts in (one, other))
    if mine.get("-j") == theirs.get("-j") and len(mine.get("-j", ())) > 0:
        return True
    for key, ending in (("-d", ("/32", "/128")), ("-p", ("",))):
        values = [parts.get(key, ("", ""))[1] for parts in (mine, theirs)]
        if all(value and value.endswith(ending) for value in values) and values[0] != values[1]:
            return True
    return False
