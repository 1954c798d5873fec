# SPDX-License-Identifier: MIT
"""The packets of several captures in the order in which they were captured, by one clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from lab.capture.ahead import Ahead
from lab.capture.frames import Frame
from lab.capture.plain import Plain
from lab.capture.reader import Reader


def in_order(readers: Sequence[Reader], plain: Plain | None, notes: list[str]) -> Iterator[tuple[Frame, str]]:
    """Yield the packets of all files by their times, section by section.

    :param plain: takes the packets of a single file of which there is nothing to tell; None: all are wanted.
    :param notes: is told of clocks that are apart, at the end.
    """
    if not readers:
        return iter(())
    if len(readers) == 1:
        return _named(readers[0].without(plain), readers[0].name)
    return _by_one_clock([Ahead(reader) for reader in readers], notes)


def _by_one_clock(captures: Sequence[Ahead], notes: list[str]) -> Iterator[tuple[Frame, str]]:
    for one in captures:
        one.fill()
    captures = [one for one in captures if one or not one.is_ended]  # of a clock without packets is nothing to tell
    while captures:
        for one in captures:
            one.fill()
        if not any(captures):
            break
        _compare(captures)
        until = min((one.until() for one in captures if not one.is_ended), default=None)
        ready = [_named(one.release(until), one.reader.name) for one in captures]
        yield from heapq.merge(*ready, key=lambda one: (one[0].section, one[0].time))
    first = captures[0].reader.name if captures else ""
    for one in captures:
        notes += one.drift.told(one.reader.name, first)


def _compare(captures: Sequence[Ahead]) -> None:
    """Put all clocks onto the first one, also by those that are put onto it already."""
    first, *others = captures
    first.measure(others)
    waiting = [first]
    while waiting:
        known = waiting.pop(0)
        followed = [one for one in others if one.follow(known)]
        others = [one for one in others if one not in followed]
        waiting += followed
    for one in others:
        one.stay()


def _named(frames: Iterable[Frame], file: str) -> Iterator[tuple[Frame, str]]:
    return ((frame, file) for frame in frames)
