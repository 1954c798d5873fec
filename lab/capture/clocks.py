# SPDX-License-Identifier: MIT
"""The clocks of several captures: how far they are apart, by the packets that more than one of them has.

A packet is captured at one point before it is at the next: of those on their way from A to B, B's time minus A's is
the difference of the clocks and a bit more, of those on their way back a bit less. Between the two it is. Where no one
difference is between the bounds of all packets, the clocks drift, or one was set: then each part of the packets has its
own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

#: Packets of one way alone may well be that long on their way. In nanoseconds.
LEAST: Final = 100_000_000
#: Less is no sign that a clock was set: so far packets stand out of their order (lab.capture.settled). In nanoseconds.
SET: Final = 10_000_000
_NEAR: Final = 200_000  # ns; by so little bounds may contradict each other: the order of packets bears more
_ONE_WAY: Final = 1_000_000_000  # ns; where nothing bounds the drift, so often it is looked at anew
_SHARE: Final = 20  # of so many packets one may have been held up, or be another than it seems
_FEWEST: Final = 3  # packets of which a part consists: fewer may be others than they seem
_AROUND: Final = 20  # packets by which it is told how far a clock was set

#: Which way packets went: to the other capture, True, or from there; None where that is not known.
_Way: TypeAlias = bool | None


class Match(NamedTuple):
    """A packet that two captures have.

    :param at: its place in the one whose clock is looked for, and ``time``: when it was captured there, by that clock.
    :param difference: of this and the time in the other, whose clock is known.
    :param port: the higher one, which tells its connection from others, and ``to_it``: whether it goes there.
    """

    at: int
    time: int
    difference: int
    port: int
    to_it: bool


class Offset(NamedTuple):
    """By how much a clock is ahead of the first capture's, from a packet on; in nanoseconds.

    :param ahead: None where nothing is known.
    :param bounds: between which it is, where packets of both ways tell.
    :param ways: by what each way's packets told last: this, and their difference.
    """

    at: int
    ahead: int | None
    bounds: tuple[int, int] | None = None
    ways: Mapping[_Way, tuple[int, int]] = MappingProxyType({})


_Told: TypeAlias = tuple[Match, _Way]


def offsets(matches: Sequence[Match], before: Offset, times: Sequence[int], first: int) -> list[Offset]:
    """Return how far a clock is ahead, from one packet on and from another.

    :param matches: in the order in which the clock's capture has them; some of them may be before ``first``.
    :param before: what is known of packets before these.
    :param times: of all packets of the clock's capture by that clock, from the place ``first`` on.
    """
    found, last = [before], None
    for piece in _pieces(_without_odd(_with_ways(matches))):
        made = _offset(piece, found[-1])
        begins = piece[0][0].at
        if last is not None:  # among those that are not shared the clock was set where their times say so
            sign = 1 if (made.ahead or 0) > (found[-1].ahead or 0) else -1
            here = range(max(last, first) + 1, begins + 1)
            begins = max(here, key=lambda at: (sign * (times[at - first] - times[at - first - 1]), at), default=begins)
        found.append(made._replace(at=first if last is None else begins))
        last = piece[-1][0].at
    return found[1:] or found


def set_back(before: Sequence[int], behind: Sequence[int]) -> int:
    """Return how far a clock was set back, in nanoseconds; 0 where another one does not say that it was.

    :param before: how far the other was ahead before, packet by packet, and ``behind``: afterwards.
    """
    by = median_low(behind[:_AROUND]) - median_low(before[-_AROUND:]) if before and behind else 0
    return by if by >= SET else 0


def _with_ways(matches: Sequence[Match]) -> list[_Told]:
    """Return packets with the ways that they went: of two that are next to each other, the later was on its way there.

    Those of connections that do not tell are left out where others do.
    """
    votes: Counter[int] = Counter()
    last: dict[tuple[int, bool], Match] = {}
    for one in matches:
        other = last.get((one.port, not one.to_it))
        if other is not None and abs(one.time - other.time) < LEAST and one.difference != other.difference:
            votes[one.port] += 1 if (one.difference > other.difference) is one.to_it else -1
        last[one.port, one.to_it] = one
    told: list[_Told] = [(one, (votes[one.port] > 0) is one.to_it) for one in matches if votes[one.port]]
    return told or [(one, None) for one in matches]


def _without_odd(told: Sequence[_Told]) -> list[_Told]:
    """Return packets without those that were held up alone, or are others than they seem."""
    kept = []
    for way in (False, True, None):
        own = [one for one in told if one[1] is way]
        differences = [one.difference for one, _way in own]
        for at, one in enumerate(own):
            if abs(differences[at] - median_low(differences[max(at - 2, 0) : at + 3])) < LEAST:
                kept.append(one)
    return sorted(kept, key=lambda one: one[0].at)


def _pieces(told: Sequence[_Told]) -> Iterator[Sequence[_Told]]:
    """Yield packets in parts of which one difference holds."""
    waiting = [told] if told else []
    while waiting:
        piece = waiting.pop()
        at = _turn(piece) if _is_torn(piece) else 0
        if at:
            waiting += piece[at:], piece[:at]
        else:
            yield piece


def _is_torn(piece: Sequence[_Told]) -> bool:
    bounds = _bounds(piece)
    if bounds is not None:
        return bounds[0] > bounds[1] + _NEAR
    times = [one.time for one, _way in piece]
    return max(times) - min(times) > _ONE_WAY


def _turn(piece: Sequence[_Told]) -> int:
    """Return where the differences before and behind are furthest apart, the sides weighed by their lengths; or 0.

    That is where a clock was set, and in the middle where it drifts (E. S. Page's cumulative sum, 1955).
    """
    total, count = sum(one.difference for one, _way in piece), len(piece)
    best = at = run = 0
    for place, (one, _way) in enumerate(piece, 1):
        run += one.difference
        apart = abs(run * count - total * place)
        if apart > best and _FEWEST <= place <= count - _FEWEST:
            best, at = apart, place
    return at


def _bounds(piece: Sequence[_Told]) -> tuple[int, int] | None:
    """Return between which two differences that of the clocks is; None where all packets went the same way."""
    back = sorted(one.difference for one, way in piece if way is False)
    forth = sorted(one.difference for one, way in piece if way)
    return (back[-1 - len(back) // _SHARE], forth[len(forth) // _SHARE]) if back and forth else None


def _offset(piece: Sequence[_Told], before: Offset) -> Offset:
    bounds = _bounds(piece)
    own = {
        way: median_low(found)
        for way in (False, True, None)
        if (found := [one.difference for one, its in piece if its is way])
    }
    if bounds is not None:
        low, high = bounds if bounds[0] <= bounds[1] else sorted((own[False], own[True]))
        ahead = 0 if low <= 0 <= high else (low + high) // 2
        bounds = (low, high)
    else:
        ahead = _by_one_way(piece, own, before)
    ways = {**before.ways, **{way: (ahead, middle) for way, middle in own.items()}}
    return Offset(piece[0][0].at, ahead, bounds, ways)


def _by_one_way(piece: Sequence[_Told], own: Mapping[_Way, int], before: Offset) -> int:
    """Return the difference of clocks by packets that took as long as those that went this way before."""
    [(way, middle)] = own.items()
    if way in before.ways:
        ahead, then = before.ways[way]
        return ahead + middle - then
    # They were on their way for as long as the quickest of them at most, and not less than no time.
    known = before.ahead or 0
    nearest = min((one.difference for one, _way in piece), key=lambda one: abs(one - known))
    return known if abs(nearest - known) < LEAST else nearest
