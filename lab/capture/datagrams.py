# SPDX-License-Identifier: MIT
"""Which exchange each datagram of a capture belongs to, also where it is translated on its way."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from itertools import count
from typing import Final, TypeAlias

from lab.capture.brief import Brief, Glimpse, glimpse
from lab.capture.exchange import FEW, Datagram, Exchange, way_of
from lab.capture.explanation import Place
from lab.capture.frames import Frame
from lab.capture.headers import ends_of, key_in, key_of, sender_of, turned
from lab.capture.lane import Stream
from lab.capture.likeness import COMPARED, likeness, payload
from lab.capture.tunnels import PORTS
from lab.evidence.packet import BARRIER_PORT, UDP, SocketAddress

_MOST: Final = 20_000  # exchanges that are followed at the same time
_CROWDS: Final = 512  # exchanges of which many questions wait: so many are kept of the last ones alone
_RECENT: Final = 4096  # datagrams whose copies are looked for
_WELL_KNOWN: Final = (1024).to_bytes(2, "big")  # ports below it are servers'
_SOON: Final = 10_000_000_000  # ns in which the copies of one datagram come
_HEADERS: Final = {12: 28, 36: 48}  # bytes of IP and UDP, by those of addresses and ports
#: Ports whose datagrams may carry others, or are left out.
_OF_OTHERS: Final = frozenset(port.to_bytes(2, "big") for port in (BARRIER_PORT, *PORTS))

#: Takes a datagram of which there is nothing to tell: its addresses and ports, the length of the IP packet, bytes,
#: where in them its frame begins, how many of it were captured, its number and time. False: it has to go the long way.
DatagramTaker: TypeAlias = Callable[[bytes, int, bytes, int, int, int, int], bool]


class Datagrams:
    """Takes datagrams in the order of their times, and keeps the exchanges that they make.

    Exchanges are known by the addresses and ports of their datagrams, as these have them, in each section.

    :ivar forgotten: exchanges that were given up for memory, and ``open``: those of them with questions unanswered.
    :ivar taken: how many datagrams there was nothing to tell of when they came.
    """

    def __init__(self) -> None:
        self.forgotten = self.open = self.taken = 0
        self._orders = count()
        self._all: OrderedDict[int, Exchange | Brief] = OrderedDict()
        self._pairs: dict[int, dict[bytes, Exchange | Brief]] = defaultdict(dict)
        self._own: dict[int, tuple[bytes, ...]] = {}
        self._ends: dict[int, dict[bytes, Exchange | Brief]] = defaultdict(dict)
        self._crowds: OrderedDict[int, Exchange | Brief] = OrderedDict()
        self._recent: OrderedDict[tuple[object, ...], tuple[Exchange, Datagram] | Glimpse] = OrderedDict()

    @property
    def exchanges(self) -> Iterable[Exchange | Brief]:
        """The exchanges in the order of their beginnings."""
        return self._all.values()

    def of(self, section: int, source: SocketAddress, destination: SocketAddress) -> Exchange | None:
        """Return the exchange of which a datagram with these addresses is."""
        found = self._pairs[section].get(key_of(source, destination))
        return None if found is None else self._in_full(found)

    def taker(self, section: int, stream: Stream, at: int) -> DatagramTaker:
        """Return what takes datagrams that pass by a point, as far as there is nothing to tell of them.

        :param at: where in a frame the IP header begins.
        """
        find, recent = self._pairs[section].get, self._recent

        def take(key: bytes, total: int, data: bytes, begun: int, kept: int, number: int, time: int) -> bool:
            header = at + _HEADERS[len(key)]
            length = total + at - header
            if kept < header or length < 0:
                return False
            behind = begun + header
            begins = data[behind : behind + (COMPARED if kept > header + COMPARED else kept - header)]
            place = begun + at + 4
            identification = data[place] << 8 | data[place + 1] if len(key) == 12 else 0
            like = (section, UDP, identification, length, begins)
            if like in recent:
                return False
            one = find(key) or self._begin(key, section, stream, at)
            if type(one) is not Brief or one.stream is not stream:
                return False
            from_client = key == one.key
            seen = glimpse((one, from_client, begins, data[begun:behind], number, time))
            one.add(seen, time, from_client=from_client)
            if from_client and len(one.waiting) > FEW:
                self._crowd(one)
            recent[like] = seen
            if len(recent) > _RECENT:
                recent.popitem(last=False)
            self.taken += 1
            return True

        return take

    def _begin(self, key: bytes, section: int, stream: Stream, at: int) -> Brief | None:
        """Return the exchange that a datagram begins; None where it may be of another one, or carries others."""
        if key[-4:-2] in _OF_OTHERS or key[-2:] in _OF_OTHERS:
            return None
        known = self._ends[section].get(sender_of(turned(key)))
        if known is not None and known.waiting:
            return None
        key = _question(key)
        made = Brief(next(self._orders), key, section, stream, at)
        pairs = self._pairs[section]
        pairs[key] = pairs[turned(key)] = made
        self._keep(made, key)
        return made

    def see(self, frame: Frame, file: str) -> None:
        """Take one datagram into account."""
        packet = frame.packet
        place = Place(file, frame.number, frame.time, frame.interface)
        like, key = (
            (frame.section, *likeness(frame)),
            (key_in(frame.data, frame.at) or key_of(packet.source, packet.destination)),
        )
        found = self._pairs[frame.section].get(key)
        exchange = None if found is None else self._in_full(found)
        known = self._known(like)
        if known is None or not self._is_copy(*known, exchange, frame, file):
            if exchange is None:
                exchange = self._stranger(key, frame.section) or self._new(key, frame.section)
            datagram = Datagram(packet, exchange.is_from_client(packet), payload(frame))
            exchange.add(datagram, frame.time, from_client=datagram.from_client)
            if datagram.from_client and len(exchange.waiting) > FEW:
                self._crowd(exchange)
            known = (exchange, datagram)
            self._remember(like, known)
        exchange, datagram = known
        if key not in self._pairs[frame.section]:
            exchange.translate(packet, from_client=datagram.from_client)
            self._add(exchange, key)
        exchange.see(datagram, packet, place, (file, frame.interface), way_of(frame))

    def _crowd(self, one: Exchange | Brief) -> None:
        """Take it that many questions wait in an exchange: of the one where that was so longest ago few are kept."""
        self._crowds[one.order] = one
        self._crowds.move_to_end(one.order)
        if len(self._crowds) > _CROWDS:
            self._crowds.popitem(last=False)[1].thin()

    def _remember(self, like: tuple[object, ...], one: tuple[Exchange, Datagram] | Glimpse) -> None:
        self._recent[like] = one
        self._recent.move_to_end(like)
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _known(self, like: tuple[object, ...]) -> tuple[Exchange, Datagram] | None:
        """Return the last datagram that was like this one, and its exchange."""
        known = self._recent.get(like)
        exchange = self._in_full(known.brief) if isinstance(known, Glimpse) else None
        known = self._recent.get(like)  # a question that waits is in its exchange now
        if isinstance(known, Glimpse) and exchange is not None:
            known = self._recent[like] = (exchange, known.datagram)
        assert not isinstance(known, Glimpse)
        return known

    def _in_full(self, one: Exchange | Brief) -> Exchange:
        """Return an exchange that knows all of its datagrams, as if each had gone the long way when it came."""
        if isinstance(one, Exchange):
            return one
        if one.became is not None:
            return one.became
        waiting = list(one.waiting)
        made = one.became = one.tell()
        for seen, datagram in zip(waiting, made.waiting, strict=True):
            packet = datagram.packet
            like = (one.section, UDP, packet.identification, packet.payload_length, datagram.begins)
            if self._recent.get(like) is seen:
                self._recent[like] = (made, datagram)
        if self._all.get(one.order) is one:  # it was not given up
            self._all[one.order] = made
            if one.order in self._crowds:
                self._crowds[one.order] = made
            own = self._own[one.order] = (one.key, turned(one.key))
            for known, keys in ((self._pairs[one.section], own), (self._ends[one.section], [sender_of(one.key)])):
                known.update((key, made) for key in keys if known.get(key) is one)
        return made

    @staticmethod
    def _is_copy(known: Exchange, datagram: Datagram, exchange: Exchange | None, frame: Frame, file: str) -> bool:
        """Check whether a datagram that is like another one is the same, and not sent again or by somebody else."""
        packet = frame.packet
        if exchange not in (known, None) or frame.time - datagram.places[0].time > _SOON:
            return False
        point, way = (file, frame.interface), way_of(frame)
        is_there = any(form[:2] == (point, way) for form in datagram.forms)
        if is_there and not packet.identification:
            return False  # the number would tell (RFC 6864)
        first = datagram.packet
        if packet.source.address == first.source.address and packet.source.port != first.source.port:
            return False  # a translation of the port alone is none that a node does
        is_alike = packet.source == first.source or packet.destination == first.destination
        return exchange is not None or is_alike or bool(packet.identification)

    def _stranger(self, key: bytes, section: int) -> Exchange | None:
        """Return the exchange that a datagram from an address which its client did not ask answers, by its client."""
        known = self._ends[section].get(sender_of(turned(key)))
        return self._in_full(known) if known is not None and known.waiting else None

    def _new(self, key: bytes, section: int) -> Exchange:
        key = _question(key)
        made = Exchange(*ends_of(key), next(self._orders), section)
        self._add(made, key)
        self._keep(made, key)
        return made

    def _add(self, exchange: Exchange, key: bytes) -> None:
        own = (key, turned(key))
        self._own[exchange.order] = (*self._own.get(exchange.order, ()), *own)
        self._pairs[exchange.section].update(dict.fromkeys(own, exchange))

    def _keep(self, made: Exchange | Brief, key: bytes) -> None:
        """Follow an exchange whose questions have these addresses and ports."""
        self._all[made.order] = made
        self._ends[made.section][sender_of(key)] = made
        if len(self._all) > _MOST:
            self._forget()

    def _forget(self) -> None:
        order, oldest = self._all.popitem(last=False)
        self._crowds.pop(order, None)
        self.forgotten += 1
        self.open += bool(oldest.waiting or oldest.unanswered)
        if isinstance(oldest, Brief):
            key = oldest.key
            own: tuple[bytes, ...] = (key, turned(key))
            oldest.waiting.clear()  # they know it: without them it is gone at once
        else:
            key, own = key_of(oldest.client, oldest.target), self._own.pop(oldest.order)
        pairs, ends, end = self._pairs[oldest.section], self._ends[oldest.section], sender_of(key)
        for one in own:
            if pairs.get(one) is oldest:
                del pairs[one]
        if ends.get(end) is oldest:
            del ends[end]


def _question(key: bytes) -> bytes:
    """Return the addresses and ports of an exchange's questions, by those of its first datagram."""
    return turned(key) if key[-4:-2] < min(key[-2:], _WELL_KNOWN) else key
