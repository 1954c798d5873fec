# SPDX-License-Identifier: MIT
"""The packets of several captures in the order in which they were captured, by one clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final

from lab.capture.clocks import clocks, told
from lab.capture.frames import Frame
from lab.capture.plain import Plain
from lab.capture.reader import Reader

_HEAD: Final = 20_000  # packets of each by which the clocks are compared


def in_order(readers: Sequence[Reader], plain: Plain | None, notes: list[str]) -> Iterator[tuple[Frame, str]]:
    """Yield the packets of all files by their times, section by section.

    :param plain: takes the packets of a single file of which there is nothing to tell; None: all are wanted.
    :param notes: is told of clocks that are apart.
    """
    if not readers:
        return iter(())
    if len(readers) == 1:
        return _named(readers[0].without(plain), readers[0].name, 0)
    ways = [iter(reader) for reader in readers]
    heads = [list(islice(way, _HEAD)) for way in ways]
    ahead = clocks(heads)
    notes += told([reader.name for reader in readers], ahead)
    for reader, by in zip(readers, ahead, strict=True):
        reader.ahead = by or 0
    named = (
        _named(chain(head, way), reader.name, reader.ahead)
        for reader, head, way in zip(readers, heads, ways, strict=True)
    )
    return heapq.merge(*named, key=lambda one: (one[0].section, one[0].time))


def _named(frames: Iterable[Frame], file: str, ahead: int) -> Iterator[tuple[Frame, str]]:
    if not ahead:
        return ((frame, file) for frame in frames)
    return ((frame._replace(time=frame.time - ahead), file) for frame in frames)
