"""Rotating covers of products that are too large for every run.

A test with several parameters is one of these: in each run, every value of every parameter is tried once at least, and
what it is tried with changes (:func:`spread`; the hook is in tests/conftest.py). Lists of pairs are made by
:func:`pairs`. Which part of a product a run takes is by a seed, which its header prints: ``LAB_SEED=...`` repeats a
run, and ``LAB_FULL=1`` takes the whole. What a part names its tests by is what the whole names them by.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, TypeVar

SEED: Final = "LAB_SEED"
FULL: Final = "LAB_FULL"
LONG: Final = "LAB_TESTS_AT_FULL_LENGTH"

Row = TypeVar("Row")
Column = TypeVar("Column")
Place = TypeVar("Place")


def set_seed() -> str:
    """Return the seed of this run, the same in all its processes, which inherit it."""
    return os.environ.setdefault(SEED, str(random.SystemRandom().randrange(10**6)))


def whole() -> bool:
    """Report whether whole products are wanted."""
    return bool(os.environ.get(FULL))


def at_full_length() -> bool:
    """Report whether long measurements are wanted, as every whole run has them: 50 kills, 1,000 repetitions."""
    return whole() or bool(os.environ.get(LONG))


def pairs(
    rows: Sequence[Row], columns: Sequence[Column], places: Callable[[Row], Sequence[Place]]
) -> list[tuple[Row, Column, Place]]:
    """Return every row with every column, each pair at one of the row's places; in a full run, at all of them.

    Whatever the seed, a row comes to all of its places if it has as many columns, and a column to all places of as
    many rows.
    """
    if whole():
        return [(row, column, place) for row in rows for column in columns for place in places(row)]
    by = random.Random(set_seed())
    turns = by.sample(range(len(columns)), len(columns))
    passed = Counter[int]()  # rows with the same places take turns; how many places they have tells them apart
    chosen: dict[int, list[tuple[Row, Column, Place]]] = {}
    for number in by.sample(range(len(rows)), len(rows)):
        here = places(rows[number])
        passed[len(here)] += 1
        chosen[number] = [
            (rows[number], column, here[(passed[len(here)] + turn) % len(here)])
            for column, turn in zip(columns, turns, strict=True)
        ]
    return [one for number in range(len(rows)) for one in chosen[number]]


def some(choices: Sequence[Place], of: str) -> Sequence[Place]:
    """Return one of the choices, another one for each ``of`` and seed; all of them in a full run."""
    if whole() or not choices:
        return choices
    return [random.Random(f"{set_seed()} {of}").choice(choices)]


def sample(choices: Sequence[Place], count: int) -> Sequence[Place]:
    """Return so many of the choices by the seed, in their order; all of them in a full run."""
    if whole():
        return choices
    return [choices[number] for number in sorted(random.Random(set_seed()).sample(range(len(choices)), count))]


def spread(points: Sequence[Mapping[str, Hashable]], of: str) -> Sequence[int]:
    """Return which points of a product a run tries, in their order; all of them in a full run.

    Whatever the seed, every value of every axis is among them; another choice for each ``of`` and seed.

    :param points: the value on each axis.
    """
    if whole():
        return range(len(points))
    by = random.Random(f"{set_seed()} {of}")
    wanted = {value for point in points for value in point.items()}
    left = by.sample(range(len(points)), len(points))
    chosen = []
    while wanted:
        best = max(left, key=lambda number: len(wanted & points[number].items()))
        left.remove(best)
        chosen.append(best)
        wanted -= points[best].items()
    return sorted(chosen)
