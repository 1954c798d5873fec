# SPDX-License-Identifier: MIT
"""Completes a part of a node's rules, so that nothing is called missing of which nothing is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.rules.diff import beyond
from lab.rules.normal import Item, rules, without_share

if TYPE_CHECKING:
    from lab.rules.dump import Container, Dump, Line


def completed(expected: Dump, found: Dump) -> Dump:
    """Return a node's rules with all that is not in the dump as kube-proxy writes it.

    What stands there in other words stays, and so does what is extra.
    """
    containers = dict(found.containers)
    for place, ours in expected.containers.items():
        if place[0] in found.tables:
            theirs = containers.get(place)
            containers[place] = _merged(ours, theirs) if theirs else ours
    return replace(found, containers=containers)


def _merged(ours: Container, theirs: Container) -> Container:
    wanted, given = ([_without_share(one) for one in rules(side)] for side in (ours, theirs))
    missing, extra = beyond(wanted, given), beyond(given, wanted)
    unlike = Counter[Hashable](likeness for item in extra for likeness in item.likenesses())
    behind: dict[int, list[Line]] = {}
    places: dict[Hashable, list[int]] = {}
    for place, item in enumerate(given):
        places.setdefault(item.parts, []).append(place)
    last = -1
    gone = {id(item) for item in missing}
    for item, line in zip(wanted, ours.lines, strict=True):
        if id(item) not in gone:
            last = places[item.parts].pop(0)
        elif not any(unlike[likeness] for likeness in item.likenesses()):
            behind.setdefault(last, []).append(line)
    lines = list(behind.get(-1, ()))
    for place, line in enumerate(theirs.lines):
        lines += [line, *behind.get(place, ())]
    return replace(theirs, lines=lines)


def _without_share(item: Item) -> Item:
    return Item(without_share(item.parts), item.text, item.line)
