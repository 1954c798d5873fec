# SPDX-License-Identifier: MIT
"""The packets of one of several captures that are read ahead of those that are told, to see how its clock goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, NamedTuple, TypeAlias

from lab.capture.clocks import SET, Match, Offset, offsets, set_back
from lab.capture.drift import Drift
from lab.capture.frames import Frame
from lab.capture.likeness import likeness
from lab.capture.reader import Reader

_MOST: Final = 20_000  # packets that are read ahead
_KEPT: Final = 8

_Likeness: TypeAlias = tuple[object, ...]


class _Sight(NamedTuple):
    """Where a packet was captured first: its place in the file, counted from 0, and in which stream of it."""

    at: int
    time: int
    stream: tuple[object, ...]
    port: int
    to_it: bool


class Ahead:
    """The packets of a capture that are read and not told yet.

    :ivar is_ended: there are no more than these.
    :ivar drift: what there is to say of its clock.
    :ivar times: of the packets, by the first capture's clock, in nanoseconds.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.is_ended = False
        self.drift = Drift()
        self.times: list[int] = []
        self._way = iter(reader)
        self._first = 0  # the place of the first of them
        self._frames: list[Frame] = []
        self._keys: list[_Likeness] = []
        self._sights: dict[_Likeness, _Sight | None] = {}
        self._offsets = [Offset(0, None)]
        self._matches: list[Match] = []
        self._past: list[Match] = []  # the last that were told: what follows is held against them

    def __bool__(self) -> bool:
        return bool(self._frames)

    def fill(self) -> None:
        """Read on."""
        wanted = _MOST - len(self._frames)
        new = list(islice(self._way, wanted))
        self.is_ended = len(new) < wanted
        for at, frame in enumerate(new, self._first + len(self._frames)):
            self._see(frame, at)
        self._frames += new

    def _see(self, frame: Frame, at: int) -> None:
        packet = frame.packet
        key: _Likeness = likeness(frame) if packet.icmp is None else ()
        self._keys.append(key)
        if not key:
            return
        stream = (frame.interface, frame.outgoing, packet.source, packet.destination)
        known = self._sights.get(key)
        if known is not None and known.stream == stream:
            self._sights[key] = None  # sent twice: which of them another capture has is not told
        elif key not in self._sights:
            one, other = packet.source.port, packet.destination.port
            self._sights[key] = _Sight(at, frame.time, stream, max(one, other), one < other)

    def measure(self, others: Sequence[Ahead]) -> None:
        """Take its clock for the measure, but for where it was set back, as far as other captures tell."""
        ahead = self._offsets[0].ahead or 0
        self._offsets = [Offset(self._first, ahead, (ahead, ahead))]
        for at in self._falls():
            for other in others:
                pairs = sorted((own.at, its.time - own.time) for own, its in self._shared(other))
                before = [by for place, by in pairs if place < at]
                by = set_back(before, [by for _place, by in pairs[len(before) :]])
                if by:
                    ahead -= by
                    self._offsets.append(Offset(at, ahead, (ahead, ahead)))
                    break
        self._set_times()

    def follow(self, other: Ahead) -> bool:
        """Put its clock onto another one's, by the packets that both have; return whether there are any."""
        matches = [
            Match(own.at, own.time, own.time - other.times[its.at - other._first], its.port, its.to_it)
            for own, its in self._shared(other)
        ]
        if matches:
            own_times = [frame.time for frame in self._frames]
            self._matches = [*self._past, *matches]
            self._offsets = offsets(self._matches, self._offsets[0], own_times, self._first)
            self._set_times()
        return bool(matches)

    def stay(self) -> None:
        """Take it that its clock goes on as it did."""
        del self._offsets[1:]
        self._set_times()

    def until(self) -> tuple[int, int]:
        """Return the section and the time up to which all packets are read."""
        return max(zip((frame.section for frame in self._frames), self.times, strict=True), default=(0, 0))

    def release(self, until: tuple[int, int] | None) -> list[Frame]:
        """Return the first packets, by the first capture's clock, up to a section and a time in it; None: all.

        Behind one that is later none is, for its clock may have been set where that is not seen yet.
        """
        count = len(self._frames)
        if until is not None:
            later = (at for at, one in enumerate(self._frames) if (one.section, self.times[at]) > until)
            count = min(next(later, count), self._turns_back())
        told = [
            frame if frame.time == time else frame._replace(time=time)
            for frame, time in zip(self._frames[:count], self.times, strict=False)
        ]
        if told:
            self._forget(count)
        return told

    def _turns_back(self) -> int:
        """Return how many come before times go back near the end, where a clock may have been set just now."""
        half = len(self.times) // 2
        falls = (at for at in range(half + 1, len(self.times)) if self.times[at - 1] - self.times[at] >= SET)
        return next(falls, len(self.times))

    def _forget(self, count: int) -> None:
        end = self._first + count
        for begins, offset, ends in self._ranges():
            if begins < min(ends, end):
                at, last = begins - self._first, min(ends, end) - self._first - 1
                self.drift.add(offset, self._frames[at].number, self._frames[at].time, self._frames[last].time)
                self._offsets[0] = offset
                self.reader.ahead = offset.ahead or 0
        for at, key in enumerate(self._keys[:count], self._first):
            known = self._sights.get(key)
            if known is None or known.at == at:
                self._sights.pop(key, None)
        self._past = [one for one in self._matches if one.at < end][-_KEPT:]
        self._first = end
        for kept in (self._frames, self._keys, self.times):
            del kept[:count]

    def _shared(self, other: Ahead) -> Iterator[tuple[_Sight, _Sight]]:
        """Yield where the packets that both have were seen, here and there."""
        for key, own in self._sights.items():
            its = other._sights.get(key)
            if own is not None and its is not None:
                yield own, its

    def _falls(self) -> Iterator[int]:
        """Yield the places from which on times have gone back, as those of a clock that was set."""
        frames = self._frames
        for at, (before, here) in enumerate(pairwise(frames), 1):
            behind = frames[at + 1] if at + 1 < len(frames) else here
            if before.time - here.time >= SET and behind.time < before.time and before.section == here.section:
                yield self._first + at

    def _ranges(self) -> list[tuple[int, Offset, int]]:
        """Return from which place to which other what holds of the clock."""
        begins = [self._first, *(max(one.at, self._first) for one in self._offsets[1:])]
        ends = [*begins[1:], self._first + len(self._frames)]
        return list(zip(begins, self._offsets, ends, strict=True))

    def _set_times(self) -> None:
        self.times = [
            frame.time - (offset.ahead or 0)
            for begins, offset, ends in self._ranges()
            for frame in self._frames[begins - self._first : ends - self._first]
        ]
