# SPDX-License-Identifier: MIT
"""Which connection each packet of a capture belongs to, also where it is translated on its way."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from itertools import count
from typing import Final, TypeAlias

from lab.capture.connection import Connection
from lab.capture.datagrams import Datagrams
from lab.capture.explanation import Place
from lab.capture.frames import Frame
from lab.capture.headers import key_in, key_of, opening, sender_of, turned
from lab.capture.lane import Stream
from lab.capture.listing import Listed
from lab.capture.ordinary import Ordinary, Raw
from lab.capture.plain import Plain
from lab.capture.remembered import Remembered
from lab.capture.sysctls import DEFAULTS, Sysctls
from lab.capture.telling import Telling
from lab.evidence.follow import distance
from lab.evidence.packet import ACK, RST, SYN, Packet, SocketAddress
from lab.vocabulary import Behaviour

#: Connections that are followed at the same time, and what those of which all is kept may hold: about 2 KiB each.
_MOST: Final = 20_000
_ROOM: Final = 40_000
_WHOLE: Final = 4  # what a connection holds beside its packets
_LIVE: Final = 1024  # of them, those of whose packets copies are looked for
_NEAR: Final = 1 << 22  # bytes: what a stranger's packet may be off by and still be about a connection
_AT_ONCE: Final = 1_000_000_000  # ns; by then a SYN without an answer is sent again (RFC 6298, 2.1)

#: Entries of conntrack's, by client and VIP as well as by client and endpoint, as the latter knows the former.
Translations: TypeAlias = Mapping[tuple[SocketAddress, SocketAddress], Listed]


class Follower:
    """Takes packets in the order of their times, and keeps the connections that they make.

    :param datagrams: takes what is of UDP and of which there is nothing to tell.
    :param telling: is told connections, when they are given up and at the end.
    :param translations: what is known beforehand of whom VIPs became.
    :param sysctls: of the node.
    :param sparing: connections of which there is nothing to tell need not be followed packet by packet.
    :ivar forgotten: connections that were given up for memory.
    :ivar plain: the packets of which there is nothing to tell.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        datagrams: Datagrams,
        telling: Telling,
        translations: Translations | None = None,
        sysctls: Sysctls = DEFAULTS,
        *,
        sparing: bool = True,
    ) -> None:
        self.forgotten = 0
        self._telling = telling
        self._behaviour = behaviour
        self._sysctls = sysctls
        self._translations = translations or {}
        self._sparing = sparing and not self._translations
        self._orders = count()
        self._all: OrderedDict[int, Connection | Ordinary] = OrderedDict()
        self._flows: dict[int, dict[bytes, Connection | Ordinary]] = defaultdict(dict)
        self._own: dict[int, tuple[bytes, ...]] = {}
        self._begun: dict[tuple[int, int], Connection | Ordinary] = {}
        self._ends: dict[int, dict[bytes, Connection | Ordinary]] = defaultdict(dict)
        self._remembered = Remembered()
        self._live: OrderedDict[int, Connection | Ordinary] = OrderedDict()
        self._held: dict[int, int] = {}
        self._hold = 0
        self.plain = Plain(self._touch, self._begin, self._remembered, datagrams)

    def tell(self, last: int | None) -> None:
        """Tell all connections that are followed yet, in the order of their beginnings.

        :param last: when the capture ended.
        """
        for one in sorted(self._all.values(), key=_order):
            self._telling.end(one, last) if isinstance(one, Connection) or one.is_open else self._tell_begun(one, last)

    def _tell_begun(self, one: Ordinary, last: int | None) -> None:
        """Tell a connection whose handshake is not done; a flood has many, so each is made for that and not kept."""
        if one.answered or not self._telling.count_unanswered(one):
            self._telling.end(self._told(one), last)

    def of(self, section: int, source: SocketAddress, destination: SocketAddress) -> Connection | None:
        """Return the connection of which a packet with these addresses is."""
        return self._found_in_full(self._flows[section].get(key_of(source, destination)))

    def see(self, frame: Frame, file: str) -> None:
        """Take one packet into account."""
        packet = frame.packet
        tcp = packet.tcp
        assert tcp is not None
        key = key_in(frame.data, frame.at) or key_of(packet.source, packet.destination)
        connection = self._found_in_full(self._flows[frame.section].get(key))
        if connection is None or (tcp.flags & (SYN | ACK | RST) == SYN and _is_another(connection, packet)):
            connection = self._found(key, packet, frame.section, frame.time)
        if not connection.begins:
            self._remembered.add(packet, connection)
        self._touch(connection)
        stream = (file, frame.interface, frame.outgoing)
        connection.settle()
        connection.see(frame, Place(file, frame.number, frame.time, frame.interface), stream)
        self.plain.open(connection, frame, stream)

    def _found_in_full(self, one: Connection | Ordinary | None) -> Connection | None:
        return None if one is None else self._in_full(one)

    def _in_full(self, one: Connection | Ordinary) -> Connection:
        """Return a connection that knows all of its packets, as if each had gone the long way when it came."""
        if isinstance(one, Connection):
            return one
        last = self.plain.last
        made = self._told(one)
        one.let_go()
        self.plain.last = made if last is one else last
        self._all[made.order] = made
        if made.order in self._live:
            self._live[made.order] = made
        else:
            self._weigh(made)
        begun = (one.section, one.sequence)
        if self._begun.get(begun) is one:
            self._begun[begun] = made
        own = self._own[made.order] = (one.key, turned(one.key))
        for known, keys in ((self._flows[one.section], own), (self._ends[one.section], [sender_of(one.key)])):
            known.update((key, made) for key in keys if known.get(key) is one)
        return made

    def _told(self, one: Ordinary) -> Connection:
        made = Connection(*one.ends, one.section, self._behaviour, one.order, self._sysctls)
        one.tell(made, self.plain)
        return made

    def _touch(self, connection: Connection | Ordinary) -> None:
        """Take it that a connection has had a packet."""
        order = connection.order
        self._live[order] = connection
        self._live.move_to_end(order)
        self._all.move_to_end(order)
        self._hold -= self._held.pop(order, 0)
        if len(self._live) > _LIVE:
            _order, last = self._live.popitem(last=False)
            last.end()
            if isinstance(last, Connection):
                self._weigh(last)
        while self._hold > _ROOM:
            self._forget(self._all[next(iter(self._held))])

    def _weigh(self, connection: Connection) -> None:
        """Take into account what a connection holds that has no packets now."""
        held = self._held[connection.order] = _WHOLE + len(connection.odd) + len(connection.resets)
        self._hold += held

    def _found(self, key: bytes, packet: Packet, section: int, time: int) -> Connection:
        """Return the connection of a pair of addresses that is new."""
        tcp = packet.tcp
        assert tcp is not None
        if tcp.flags & (SYN | ACK | RST) == SYN:
            known = self._found_in_full(self._begun.get((section, tcp.sequence)))
            if known is None or not _shares(known, packet):
                return self._new(key, packet, section, time)
            if known.client != packet.source or known.has(packet) or known.is_translated:
                known.translate(packet)
            else:  # sent again, and first seen as it was sent
                known.asked_at(packet.destination)
            self._add(known, key)
            return known
        known = self._remembered.get(packet)
        if known is not None and known.section == section and known.order in self._all:
            if known.is_from_client(packet):
                known.translate(packet)
            elif known.target != packet.source:
                known.asked_at(packet.source)
                known.client = packet.destination
            self._add(known, key)
            return known
        ends = self._ends[section]
        stranger = _strangers(self._found_in_full(ends.get(sender_of(turned(key)))), packet, time)
        stranger = stranger or _other_half(self._found_in_full(ends.get(sender_of(key))), packet)
        if stranger is not None:
            self._add(stranger, key)
            return stranger
        return self._new(key, packet, section, time)

    def _new(self, key: bytes, packet: Packet, section: int, time: int) -> Connection:
        tcp = packet.tcp
        assert tcp is not None
        from_server = tcp.flags & (SYN | ACK) == SYN | ACK or (
            not tcp.flags & SYN and packet.source.port < packet.destination.port
        )
        ends = (packet.destination, packet.source) if from_server else (packet.source, packet.destination)
        entry = self._translations.get(ends) or self._translations.get(ends[::-1])
        if entry is not None:
            from_server = packet.destination in (entry.original[0], entry.reply[1])
            ends = entry.original
        made = Connection(*ends, section, self._behaviour, next(self._orders), self._sysctls)
        before = self._found_in_full(self._flows[section].get(key))
        if before is not None:
            made.come_after(before, time)
        if entry is not None:
            made.endpoint, made.peer = entry.reply
            for one in (ends, entry.reply, (entry.reply[0], ends[0])):
                self._add(made, key_of(*one))
        self._add(made, key)
        self._keep(made, key_of(*ends), None if from_server else tcp.sequence)
        return made

    def _begin(self, key: bytes, raw: Raw, section: int, stream: Stream, at: int) -> Ordinary | None:
        """Return the ordinary connection that a SYN begins; None where it may be no new one, or all are wanted."""
        flows, syn = self._flows[section], opening(raw.headers, at)
        # Where there is one with these addresses, its entry may be there yet.
        if syn is None or not self._sparing or (section, syn[0]) in self._begun or key in flows:
            return None
        made = Ordinary(next(self._orders), key, raw, syn, section, stream, at)
        flows[key] = flows[turned(key)] = made
        self._keep(made, key, made.sequence)
        return made

    def _keep(self, made: Connection | Ordinary, key: bytes, sequence: int | None) -> None:
        """Follow a connection from its first packet on.

        :param key: addresses and ports of what its client sends.
        :param sequence: the client's, None where that is not known.
        """
        self._all[made.order] = made
        self._ends[made.section][sender_of(key)] = made
        if sequence is not None:
            self._begun[made.section, sequence] = made
        if len(self._all) > _MOST:
            self._forget(next(iter(self._all.values())))

    def _add(self, connection: Connection, key: bytes) -> None:
        """Have packets with these addresses and ports, and their answers, found to be of a connection."""
        own = (key, turned(key))
        self._own[connection.order] = (*self._own.get(connection.order, ()), *own)
        self._flows[connection.section].update(dict.fromkeys(own, connection))

    def _forget(self, oldest: Connection | Ordinary) -> None:
        """Give up a connection, and tell what was found of it."""
        self.forgotten += 1
        del self._all[oldest.order]
        self._live.pop(oldest.order, None)
        self._hold -= self._held.pop(oldest.order, 0)
        if isinstance(oldest, Ordinary):
            self._give_up(oldest)
            key = oldest.key
            own: tuple[bytes, ...] = (key, turned(key))
        else:
            self._telling.give_up(oldest)
            _close(oldest)
            key, own = key_of(oldest.client, oldest.target), self._own.pop(oldest.order, ())
        flows, ends, end = self._flows[oldest.section], self._ends[oldest.section], sender_of(key)
        for one in own:
            if flows.get(one) is oldest:
                del flows[one]
        if ends.get(end) is oldest:
            del ends[end]
        sequence = _sequence(oldest)
        if sequence is not None and self._begun.get((oldest.section, sequence)) is oldest:
            del self._begun[oldest.section, sequence]

    def _give_up(self, one: Ordinary) -> None:
        """Tell an ordinary connection, of which there is something to tell where nobody answered it."""
        if one.answered:
            self._telling.give_up(one)
        elif not self._telling.count_unanswered(one):
            last, made = self.plain.last, self._told(one)
            self.plain.last = last
            self._telling.give_up(made)
            _close(made)
        one.let_go()


def _close(connection: Connection) -> None:
    """Have no more packets taken for a connection: without its lanes, which know it, it is gone at once."""
    for lane in connection.lanes.values():
        lane.close()
    connection.lanes.clear()
    connection.kept.clear()


def _order(one: Connection | Ordinary) -> int:
    return one.order


def _strangers(known: Connection | None, packet: Packet, time: int) -> Connection | None:
    """Return the connection that a packet from an address that its client does not know is about, by its numbers.

    That is all that a point on the client's side sees of a translation that is missing.

    :param known: the last connection of the packet's receiver.
    """
    tcp = packet.tcp
    if tcp is None or known is None or known.is_translated:
        return None
    if known.has(packet):  # so it was seen before its translation first
        known.asked_at(packet.source)
        return known
    sent = _reached(known, by_client=True) if known.conntrack.answered else None
    is_near = sent is not None and tcp.flags & ACK and abs(distance(sent, tcp.acknowledgement)) <= _NEAR
    if not is_near and not _answers_syn(known, packet, time):
        return None
    known.stranger(packet.source)
    return known


def _other_half(known: Connection | None, packet: Packet) -> Connection | None:
    """Return the connection that a client's packet to another address is of, by its numbers, both of which agree.

    As where a capture begins between the two copies of a packet, or that of one side later than that of the other.

    :param known: the last connection of the packet's sender.
    """
    tcp = packet.tcp
    if tcp is None or known is None or known.is_translated or not tcp.flags & ACK:
        return None
    own, other = (_reached(known, by_client=side) for side in (True, False))
    if own is None or other is None:
        return None
    if abs(distance(own, tcp.sequence)) > _NEAR or abs(distance(other, tcp.acknowledgement)) > _NEAR:
        return None
    if known.has(packet):
        known.translate(packet)
    else:  # what was seen first is what the client sent
        known.asked_at(packet.destination)
    return known


def _reached(connection: Connection, *, by_client: bool) -> int | None:
    """Return how far a side has come: by what it sent, or else by what the other one acknowledged; None unless told."""
    sent = connection.conntrack.sent(by_client=by_client)
    return connection.conntrack.awaited(from_client=by_client) if sent is None else sent


def _answers_syn(connection: Connection, packet: Packet, time: int) -> bool:
    """Check whether a packet from an address that was not asked answers the SYN that nobody has answered.

    :param time: when it was seen, in nanoseconds.
    """
    tcp, asked = packet.tcp, connection.ways.first.get(True)
    if tcp is None or asked is None or connection.conntrack.answered or not tcp.flags & (SYN | RST):
        return False
    if tcp.flags & ACK:
        return tcp.acknowledgement == asked.packet.end
    return bool(tcp.flags & RST) and 0 <= time - connection.asked < _AT_ONCE


def _is_another(connection: Connection | Ordinary, packet: Packet) -> bool:
    """Check whether a SYN begins another connection of the same addresses, as the old one is over, or never began."""
    assert packet.tcp is not None
    entry = connection if isinstance(connection, Ordinary) else connection.conntrack
    return (entry.closed or not entry.answered) and _sequence(connection) not in (None, packet.tcp.sequence)


def _sequence(connection: Connection | Ordinary) -> int | None:
    """Return the number of a connection's first packet; None where it has none yet."""
    if isinstance(connection, Ordinary):
        return connection.sequence
    return connection.first.tcp.sequence if connection.first is not None and connection.first.tcp is not None else None


def _shares(connection: Connection, packet: Packet) -> bool:
    """Check whether a SYN is the first one of a connection once more, translated: more than its number is the same."""
    first = connection.first
    if first is None or first.tcp is None or packet.tcp is None:
        return False
    if packet.source.address == first.source.address and packet.source.port != first.source.port:
        return False  # a translation of the port alone is none that a node does
    return (first.tcp.window_scale, first.tcp.window) == (packet.tcp.window_scale, packet.tcp.window)
