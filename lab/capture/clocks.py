# SPDX-License-Identifier: MIT
"""The clocks of several captures: how far they are apart, by the packets that more than one of them has.

A packet is captured at one point before it is at the next: of those on their way from A to B, B's time minus A's is
the difference of the clocks and a bit more, of those on their way back a bit less. Between the two it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from lab.capture.frames import Frame
from lab.capture.likeness import likeness

_LEAST: Final = 100_000_000  # ns; packets of one way alone may well be that long on their way
_SHARE: Final = 20  # of so many packets one may have been held up, or be another than it seems


#: Of each packet: which of its connection's two ways it went, and when it was captured.
_Times = dict[tuple[object, ...], tuple[bool, int]]


def clocks(heads: Sequence[Sequence[Frame]]) -> list[int | None]:
    """Return by how many nanoseconds the clocks of captures are ahead of the first one's, by how each of them begins.

    None for those of which nothing is known: they share no packet with the first one, nor with one that does.
    """
    times = [_times(head) for head in heads]
    ahead: list[int | None] = [0, *[None] * (len(heads) - 1)]
    waiting = [0]
    while waiting:
        known = waiting.pop(0)
        for other, its in enumerate(times):
            between = _between(times[known], its) if ahead[other] is None else None
            if between is not None:
                ahead[other] = (ahead[known] or 0) + between
                waiting.append(other)
    return ahead


def told(names: Sequence[str], ahead: Sequence[int | None]) -> Iterator[str]:
    """Yield what whoever reads on has to know of the clocks, in sentences."""
    for name, by in zip(names[1:], ahead[1:], strict=True):
        if by is None:
            yield f"{name}: shares no packet with {names[0]}: not put onto its clock, the times are taken as they are"
        elif by:
            side = "ahead of" if by > 0 else "behind"
            yield f"{name}: its clock is {_duration(abs(by))} {side} that of {names[0]}, by the packets that both have"


def _duration(nanoseconds: int) -> str:
    for unit, name in ((10**9, "s"), (10**6, "ms")):
        if nanoseconds >= unit:
            return f"{nanoseconds / unit:,.3f} {name}"
    return f"{nanoseconds / 1000:,.1f} us"


def _times(head: Sequence[Frame]) -> _Times:
    """Return when each packet was captured first, without those of which there is more than one that is the same."""
    found: _Times = {}
    streams: dict[tuple[object, ...], set[tuple[object, ...]]] = defaultdict(set)
    for frame in head:
        packet = frame.packet
        if packet.icmp is not None:
            continue
        key = likeness(frame)
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
    bounds = sorted((back[-1 - len(back) // _SHARE], forth[len(forth) // _SHARE]))
    return 0 if bounds[0] <= 0 <= bounds[1] else sum(bounds) // 2
