# SPDX-License-Identifier: MIT
"""The clocks of several captures: how far they are apart, by the packets that more than one of them has.

A packet is captured at one point before it is at the next: of those on their way from A to B, B's time minus A's is
the difference of the clocks and a bit more, of those on their way back a bit less. Between the two it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from lab.capture.frames import Frame
from lab.capture.likeness import likeness

_LEAST: Final = 100_000_000  # ns; packets of one way alone may well be that long on their way
_SHARE: Final = 20  # of so many packets one may have been held up, or be another than it seems


@dataclass(frozen=True)
class Clock:
    """How a capture's clock goes.

    :param ahead: by how many nanoseconds, of the clock that all are put onto; None where nothing tells.
    """

    ahead: int | None


#: Of one packet: which way its connection's it went, and when it was captured.
_Times = dict[tuple[object, ...], tuple[bool, int]]


def clocks(heads: Sequence[Sequence[Frame]]) -> list[Clock]:
    """Return how the clocks of captures go beside the first one's, by how each of them begins.

    Of captures that share no packet with the first one, nor with one that does, nothing is known.
    """
    times = [_times(head) for head in heads]
    ahead: list[int | None] = [0, *[None] * (len(heads) - 1)]
    waiting = [0]
    while waiting:
        known = waiting.pop(0)
        base = ahead[known]
        assert base is not None
        for other, its in enumerate(times):
            between = _between(times[known], its) if ahead[other] is None else None
            if between is not None:
                ahead[other] = base + between
                waiting.append(other)
    return [Clock(one) for one in ahead]


def _times(head: Sequence[Frame]) -> _Times:
    """Return when each packet was captured first, without those of which there is more than one that is the same."""
    found: _Times = {}
    streams: dict[tuple[object, ...], set[tuple[object, ...]]] = defaultdict(set)
    for frame in head:
        key = likeness(frame)
        packet = frame.packet
        stream = (frame.interface, frame.outgoing, packet.source, packet.destination)
        if stream in streams[key]:
            found.pop(key, None)  # sent twice: which of them another capture has is not told
            continue
        if not streams[key]:
            found[key] = (packet.source.port < packet.destination.port, frame.time)
        streams[key].add(stream)
    return found


def _between(one: _Times, other: _Times) -> int | None:
    """Return how far another clock is ahead; None where they share no packet, 0 where they agree."""
    differences: dict[bool, list[int]] = {False: [], True: []}
    for key, (way, time) in one.items():
        if key in other:
            differences[way].append(other[key][1] - time)
    ways = sorted((sorted(found) for found in differences.values() if found), key=median)
    if not ways:
        return None
    if len(ways) == 1:
        # Its packets were on their way for as long as the quickest of them at most, and not less than no time.
        nearest = min(ways[0], key=abs)
        return 0 if abs(nearest) < _LEAST else nearest
    back, forth = ways
    least, most = back[-1 - len(back) // _SHARE], forth[len(forth) // _SHARE]
    if least <= 0 <= most:
        return 0
    return (least + most) // 2
