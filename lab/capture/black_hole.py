# SPDX-License-Identifier: MIT
"""Segments that are too large for a link of their way, of which nobody tells: large ones stay away, smaller ones come.

Of that a capture shows the same bytes again and again, as large as before, and no acknowledgement (RFC 2923, 2.1). A
receiver that went away looks the same from one side, so what came behind them is looked at as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab.capture.explanation import Finding, Place
from lab.capture.naming import Naming
from lab.evidence.follow import distance

if TYPE_CHECKING:
    from lab.capture.connection import Connection, Segment
    from lab.capture.judging import Conntrack

_KEPT: Final = 64  # segments of a side that are not acknowledged
#: The most that every path carries in one segment: a sender that knows of no more sends this (RFC 9293, 3.7.1).
_LEAST: Final = {False: 536, True: 1220}
#: How often a segment has to be sent: where it is seen that it did not come, and where only its answer is missing.
_SEEN_MISSING, _UNANSWERED = 2, 3
_SHOWN: Final = 5


@dataclass
class _Waiting:
    """Bytes of one side that are not acknowledged, from one number on.

    :ivar sizes: with how many bytes they were sent, each time.
    :ivar missing: how many times they did not come as far as others.
    """

    sizes: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    last: Place | None = None
    missing: int = 0


@dataclass(frozen=True)
class Hole:
    """Bytes that did not come as large as they were sent.

    :param size: of the segment, in bytes of data; ``times``: how often it was sent so.
    :param passed: the largest one that came; 0 where that was what has no data.
    :param pieces: with how many bytes it was acknowledged at last; 0 where it never was.
    :param is_missing: it was seen each time that it did not come as far as others.
    :param heard: something of the receiver came behind it.
    """

    from_client: bool
    size: int
    times: int
    passed: int
    pieces: int
    is_missing: bool
    heard: bool
    places: tuple[Place, ...]
    last: Place


class Sizes:
    """Which sizes of segments came, and which did not, by side: True is the client's."""

    def __init__(self) -> None:
        self._waiting: dict[bool, OrderedDict[int, _Waiting]] = {True: OrderedDict(), False: OrderedDict()}
        self._passed = {True: 0, False: 0}
        self._numbers: dict[bool, int | None] = {True: None, False: None}
        self._heard: dict[bool, int] = {}
        self._through: dict[bool, int] = {}
        self._mended: dict[bool, Hole] = {}
        self._is_ipv6 = False

    def see(self, segment: Segment, conntrack: Conntrack) -> None:
        """Take a segment into account, which a side sent or sent again.

        :param conntrack: knows what each side has acknowledged.
        """
        packet, side = segment.packet, segment.from_client
        tcp = packet.tcp
        assert tcp is not None
        self._heard[side] = segment.place.time
        if packet.payload_length:
            self._sent(segment, tcp.sequence)
        if tcp.sack_blocks:
            self._selected(tcp.sack_blocks, of_client=not side)
        for one in (True, False):
            self._acknowledged(conntrack.awaited(from_client=one), of_client=one)

    def _sent(self, segment: Segment, sequence: int) -> None:
        packet, side = segment.packet, segment.from_client
        self._is_ipv6 = ":" in packet.source.address
        waiting = self._waiting[side]
        one = waiting.setdefault(sequence, _Waiting())
        one.sizes.append(packet.payload_length)
        one.last = segment.place
        if len(one.places) < _SHOWN:
            one.places.append(segment.place)
        if len(waiting) > _KEPT:
            waiting.popitem(last=False)

    def passed(self, segment: Segment, *, is_missing: bool) -> None:
        """Take it that no more copies of a segment come, and whether it came as far as the first one of its side."""
        assert segment.packet.tcp is not None
        if not is_missing:
            self._through[segment.from_client] = segment.place.time
            return
        one = self._waiting[segment.from_client].get(segment.packet.tcp.sequence)
        if one is not None:
            one.missing += 1

    def _acknowledged(self, number: int | None, *, of_client: bool) -> None:
        """Take it that the bytes of a side are acknowledged up to a number."""
        if number is None or number == self._numbers[of_client]:
            return
        self._numbers[of_client] = number
        waiting = self._waiting[of_client]
        while waiting and distance(next(iter(waiting)), number) > 0:
            _sequence, one = waiting.popitem(last=False)
            hole = self._hole(one, of_client=of_client, pieces=one.sizes[-1])
            if hole is not None and of_client not in self._mended:
                self._mended[of_client] = hole
            self._passed[of_client] = max(self._passed[of_client], one.sizes[-1])

    def _selected(self, blocks: Sequence[tuple[int, int]], *, of_client: bool) -> None:
        """Take it that bytes of a side came, though not those before them (SACK, RFC 2018)."""
        waiting = self._waiting[of_client]
        for sequence, one in list(waiting.items()):
            size = one.sizes[-1]
            if any(distance(left, sequence) >= 0 <= distance(sequence, right) - size for left, right in blocks):
                del waiting[sequence]
                self._passed[of_client] = max(self._passed[of_client], size)

    def hole(self, *, of_client: bool) -> Hole | None:
        """Return what did not come of a side for its size, as far as the capture has the evidence."""
        first = next(iter(self._waiting[of_client].values()), None)
        found = self._hole(first, of_client=of_client, pieces=0) if first is not None else None
        return found or self._mended.get(of_client)

    def _hole(self, one: _Waiting, *, of_client: bool, pieces: int) -> Hole | None:
        size = min(one.sizes[:-1] if pieces else one.sizes, default=0)  # a network card cuts what is sent first
        times = sum(sent >= size for sent in one.sizes) if size else 0
        is_missing = one.missing >= times
        passed = max(self._passed[of_client], pieces)
        if times < (_SEEN_MISSING if is_missing or pieces else _UNANSWERED) or one.last is None:
            return None
        begun = one.places[0].time
        heard = self._heard.get(not of_client, 0) > begun
        small_ones_came = passed or heard or (is_missing and self._through.get(of_client, 0) > begun)
        if not small_ones_came or size <= max(passed, _LEAST[self._is_ipv6]):
            return None
        return Hole(of_client, size, times, passed, pieces, is_missing, heard, tuple(one.places), one.last)


def stands_still(connection: Connection) -> bool:
    """Check whether a connection goes on with nothing for the size of a segment."""
    return any(not hole.pieces for hole in _holes(connection))


def findings(connection: Connection, named: Naming) -> Iterator[Finding]:
    """Yield what did not come for its size, where no ICMP error tells of that."""
    for hole in _holes(connection):
        who, other = ("client", "server") if hole.from_client else ("server", "client")
        numbers = named.all(hole.places, more=hole.times > len(hole.places))
        sentences = [f"{hole.size:,} bytes of the {who}, sent {hole.times:,} times ({numbers}), "]
        if hole.is_missing:
            sentences[0] += f"did not come as far as others each time, and were seen last as {named.where(hole.last)}"
        else:
            sentences[0] += f"{'were not acknowledged' if hole.pieces else 'are never acknowledged'}"
        if hole.pieces:
            sentences.append(f"in a piece of {hole.pieces:,} bytes they came")
        else:
            sentences.append(
                f"smaller ones came, of up to {hole.passed:,} bytes" if hole.passed else "what has no data came"
            )
        sentences.append(
            "so does a link on their way whose MTU is smaller, and whose ICMP error of that is not in the capture: a"
            " black hole"
        )
        if not (hole.is_missing or hole.pieces or hole.heard):
            sentences.append(f"or the {other} is gone, of which nothing came behind them")
        yield Finding("black-hole", "; ".join(sentences), hole.places, case="path-mtu-filtered")


def _holes(connection: Connection) -> Iterator[Hole]:
    if any(error.is_too_big for error in connection.errors.values()):
        return
    for side in (True, False):
        hole = connection.sizes.hole(of_client=side)
        if hole is not None and not connection.repeats.closed_window.get(not side):
            yield hole
