# SPDX-License-Identifier: MIT
"""Which exchange each datagram of a capture belongs to, also where it is translated on its way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from lab.capture.exchange import Datagram, Exchange
from lab.capture.explanation import Place
from lab.capture.frames import Frame
from lab.capture.likeness import likeness, payload
from lab.capture.link import BEHIND_ETHERNET
from lab.evidence.packet import Packet, SocketAddress

_MOST: Final = 20_000  # exchanges that are followed at the same time
_RECENT: Final = 4096  # datagrams whose copies are looked for
_WELL_KNOWN: Final = 1024  # ports below it are servers'
_SOON: Final = 10_000_000_000  # ns in which the copies of one datagram come

_Pair = tuple[int, SocketAddress, SocketAddress]


class Datagrams:
    """Takes datagrams in the order of their times, and keeps the exchanges that they make.

    :ivar forgotten: exchanges that were given up for memory.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        self._all: OrderedDict[int, Exchange] = OrderedDict()
        self._pairs: dict[_Pair, Exchange] = {}
        self._own: dict[int, list[_Pair]] = {}
        self._ends: dict[tuple[int, SocketAddress], Exchange] = {}
        self._recent: OrderedDict[tuple[object, ...], tuple[Exchange, Datagram]] = OrderedDict()

    @property
    def exchanges(self) -> Iterable[Exchange]:
        """The exchanges in the order of their beginnings."""
        return self._all.values()

    def of(self, section: int, source: SocketAddress, destination: SocketAddress) -> Exchange | None:
        """Return the exchange of which a datagram with these addresses is."""
        return self._pairs.get((section, source, destination))

    def see(self, frame: Frame, file: str) -> None:
        """Take one datagram into account."""
        packet = frame.packet
        place = Place(file, frame.number, frame.time, frame.interface)
        key = (frame.section, *likeness(frame))
        exchange = self._pairs.get((frame.section, packet.source, packet.destination))
        known = self._recent.get(key)
        if known is None or not self._is_copy(*known, exchange, frame, file):
            if exchange is None:
                exchange = self._stranger(frame) or self._new(packet, frame.section)
            datagram = Datagram(packet, exchange.is_from_client(packet), payload(frame))
            exchange.add(datagram, frame.time)
            known = self._recent[key] = (exchange, datagram)
            self._recent.move_to_end(key)
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        exchange, datagram = known
        if (frame.section, packet.source, packet.destination) not in self._pairs:
            exchange.translate(packet, from_client=datagram.from_client)
            self._add(exchange, packet, frame.section)
        exchange.see(datagram, packet, place, (file, frame.interface), _way(frame))

    @staticmethod
    def _is_copy(known: Exchange, datagram: Datagram, exchange: Exchange | None, frame: Frame, file: str) -> bool:
        """Check whether a datagram that is like another one is the same, and not sent again or by somebody else."""
        packet = frame.packet
        if exchange not in (known, None) or frame.time - datagram.places[0].time > _SOON:
            return False
        point, way = (file, frame.interface), _way(frame)
        is_there = any(form[:2] == (point, way) for form in datagram.forms)
        if is_there and not packet.identification:
            return False  # the number would tell (RFC 6864)
        first = datagram.packet
        if packet.source.address == first.source.address and packet.source.port != first.source.port:
            return False  # a translation of the port alone is none that a node does
        is_alike = packet.source == first.source or packet.destination == first.destination
        return exchange is not None or is_alike or bool(packet.identification)

    def _stranger(self, frame: Frame) -> Exchange | None:
        """Return the exchange that a datagram from an address which its client did not ask answers, by its client."""
        known = self._ends.get((frame.section, frame.packet.destination))
        return known if known is not None and known.waiting else None

    def _new(self, packet: Packet, section: int) -> Exchange:
        from_server = packet.source.port < min(packet.destination.port, _WELL_KNOWN)
        ends = (packet.destination, packet.source) if from_server else (packet.source, packet.destination)
        made = Exchange(*ends, section)
        self._all[id(made)] = made
        self._ends[section, made.client] = made
        self._add(made, packet, section)
        if len(self._all) > _MOST:
            self._forget()
        return made

    def _add(self, exchange: Exchange, packet: Packet, section: int) -> None:
        for pair in ((section, packet.source, packet.destination), (section, packet.destination, packet.source)):
            self._pairs[pair] = exchange
            self._own.setdefault(id(exchange), []).append(pair)

    def _forget(self) -> None:
        oldest = next(iter(self._all.values()))
        self.forgotten += 1
        del self._all[id(oldest)]
        for pair in self._own.pop(id(oldest)):
            if self._pairs.get(pair) is oldest:
                del self._pairs[pair]
        if self._ends.get((oldest.section, oldest.client)) is oldest:
            del self._ends[oldest.section, oldest.client]


def _way(frame: Frame) -> bool | bytes | None:
    """Return which way a frame went: by what the capture says, or by its receiver on an Ethernet."""
    if frame.outgoing is None and frame.at in BEHIND_ETHERNET:
        return frame.data[:6]
    return frame.outgoing
