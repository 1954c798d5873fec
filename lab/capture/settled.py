# SPDX-License-Identifier: MIT
"""Packets of a file whose times go back: a few swapped places, as captures of several processors or interfaces have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from lab.capture.frames import Cut

#: A packet as a file has it: its time in nanoseconds, its section and its number come first.
Record: TypeAlias = tuple[int, int, int, *tuple[Any, ...]]

#: How far a packet is taken back: places, and nanoseconds. What is further off is a clock that was set, or another file
#: behind this one.
_PLACES: Final = 64
_NEAR: Final = 10_000_000


def by_time(batches: Iterable[list[Record]], lines: Sequence[int] = ()) -> Iterator[list[Record]]:
    """Yield the packets of a file in batches, with those put in their places by time that came a little late.

    :param lines: of a file that was printed as text, by which its packets are numbered.
    :raises Cut: the file ends in the middle of a packet; raised behind all that came before it.
    """
    held: list[Record] = []
    try:
        for batch in _by_lines(batches, lines) if lines else batches:
            whole = held + batch
            times = [record[0] for record in whole]
            if times != sorted(times):
                whole = _settled(whole)
            held = whole[-_PLACES:]
            yield whole[:-_PLACES]
    except Cut:
        yield held
        raise
    yield held


def _by_lines(batches: Iterable[list[Record]], lines: Sequence[int]) -> Iterator[list[Record]]:
    for batch in batches:
        yield [(time, section, lines[number - 1], *rest) for time, section, number, *rest in batch]


def _settled(records: Iterable[Record]) -> list[Record]:
    placed: list[Record] = []
    for record in records:
        at = len(placed)
        if placed and record[1] == placed[-1][1] and 0 < placed[-1][0] - record[0] <= _NEAR:
            least = max(at - _PLACES, 0)
            while at > least and placed[at - 1][0] > record[0] and placed[at - 1][1] == record[1]:
                at -= 1
        placed.insert(at, record)
    return placed
