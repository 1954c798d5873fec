# SPDX-License-Identifier: MIT
"""The copies of one packet, hop by hop: where a translation is missing, and at which hop a RST answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lab.capture.connection import Connection, Segment
from lab.capture.exchange import Datagram, Exchange
from lab.capture.explanation import Hop, Place
from lab.evidence.packet import SocketAddress

#: A copy of a packet: its place, whether it was going out there (None where that is not told), from and to whom.
_Copy = tuple[Place, bool | None, SocketAddress, SocketAddress]


def of_segment(connection: Connection, segment: Segment, answers: Sequence[Segment]) -> tuple[Hop, ...]:
    """Return the copies of a packet and of the RSTs that answer it; none where there is no more than one to tell of.

    :param answers: the RSTs.
    """
    copies = _copies(segment)
    if len(copies) < 2 and copies[0][1] is None:
        return ()
    wanted = _not_translated(connection, by_client=segment.from_client)
    hops = [*_hops(copies, segment.leaked, wanted)]
    is_told = segment.translated or segment.leaked is not None or answers
    if not is_told and connection.is_translated and copies[-1][1] is False:
        hops[-1] = _said(hops[-1], "it goes out nowhere: dropped here, or lost")
    for reset in answers:
        hops += _of_answer(_copies(reset))
    return tuple(hops)


def of_datagram(exchange: Exchange, datagram: Datagram) -> tuple[Hop, ...]:
    """Return the copies of an answer that leaked; none where there is no more than one to tell of."""
    copies = [
        (place, way if isinstance(way, bool) else None, source, destination)
        for place, (_point, way, source, destination) in zip(datagram.places, datagram.forms, strict=True)
    ]
    if len(copies) < 2 and copies[0][1] is None:
        return ()
    return tuple(_hops(copies, datagram.leaked, f"not translated: {exchange.target} was to be its source"))


def _copies(segment: Segment) -> list[_Copy]:
    return [
        (place, stream[2], source, destination)
        for place, (stream, source, destination) in zip(segment.places, segment.forms, strict=True)
    ]


def _not_translated(connection: Connection, *, by_client: bool) -> str:
    if by_client:
        return f"not translated: {connection.endpoint} was to be its destination"
    return f"not translated: {connection.target} was to be its source"


def _hops(copies: Iterable[_Copy], leaked: Place | None, wanted: str) -> Iterator[Hop]:
    for place, way, source, destination in copies:
        yield Hop(place, _way(way), source, destination, wanted if place == leaked else "")


def _of_answer(copies: Sequence[_Copy]) -> Iterator[Hop]:
    first, *others = _hops(copies, None, "")
    words = "the RST that answers it"
    if first.way == "out":
        words += ": the machine that captured sent it itself"
    elif first.way == "in" and first.place.point:
        words += f": it came from beyond {first.place.point}"
    yield _said(first, words)
    yield from others


def _said(hop: Hop, words: str) -> Hop:
    return replace(hop, words=words)


def _way(outgoing: bool | None) -> str:
    return "" if outgoing is None else "out" if outgoing else "in"
