# SPDX-License-Identifier: MIT
"""What there is to tell of a trial's packets, link by link, whatever it is drawn in: text, a capture or a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab.evidence.follow import distance
from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import ACK, FIN, ICMP, RST, SYN, TCP, UDP, Packet
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import ConnectionTimeline, PacketTimeline, Timeline
from lab.report.ending import about
from lab.verdict.packet import leaked

# Which packets bring an entry into which state (net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks).
_CAUSES: Final = {
    "SYN_SENT": SYN,
    "SYN_RECV": SYN | ACK,
    "ESTABLISHED": ACK,
    "FIN_WAIT": FIN,
    "CLOSE_WAIT": ACK,
    "LAST_ACK": FIN,
    "TIME_WAIT": ACK,
    "CLOSE": RST,
}


class Finding(StrEnum):
    """What kind of thing is to be said about a packet."""

    INJECTED = "injected"
    REASON = "reason"  # why conntrack let it through without liking it
    INVALID = "invalid"  # why conntrack found it INVALID
    LEAK = "leak"
    END = "end"  # a socket that it ended


@dataclass(frozen=True)
class Note:
    """Something that the lab found out about a packet, in words."""

    finding: Finding
    words: str


@dataclass(frozen=True)
class _Crossing:
    """One packet on one link: leaving one interface, and arriving at the other unless it was lost between."""

    leaving: Sighting | None
    arriving: Sighting | None

    @property
    def sighting(self) -> Sighting:
        seen = self.leaving or self.arriving
        assert seen is not None
        return seen

    @property
    def place(self) -> str:
        """Where it was: both interfaces, or the host whose socket took it."""
        if self.arriving and self.arriving.interface == LOCAL:
            return f"{self.arriving.host} > {LOCAL}"
        ends = (f"{end.host} {end.interface}" if end else "?" for end in (self.leaving, self.arriving))
        return " > ".join(ends)


@dataclass(frozen=True)
class Hop(_Crossing):
    """One packet on one link, and what is known of it.

    :param after: since the first one, in nanoseconds.
    :param route: its addresses, source and destination.
    :param numbers: flags and numbers, relative to its connection's first; what else there is to tell of others.
    :param judged: what conntrack made of it where it arrived; None where nobody asked.
    :param change: the state that it brought the entry into; empty where it changed none.
    :param number: the one that it has in the report's figure, such as ``(3)``; empty for packets that it does not show.
    :param before: the packet as it came to the host that sent it on, where that translated it; else None.
    """

    after: int
    route: str
    numbers: str
    judged: Judged | None
    change: str
    number: str
    before: Packet | None
    is_injected: bool
    is_leak: bool
    notes: tuple[Note, ...]

    @property
    def is_reset(self) -> bool:
        """Whether it is a RST."""
        tcp = self.sighting.packet.tcp
        return tcp is not None and bool(tcp.flags & RST)

    @property
    def translation(self) -> str:
        """What the host that sent it on made of its addresses; empty where they stayed what they were."""
        if self.before is None:
            return ""
        return f"{self.sighting.host} translated {route_of(self.before)} to {self.route}"


def hops(timeline: Timeline) -> tuple[Hop, ...]:
    """Return every segment, datagram and ICMP error on every link, in the order in which they were seen."""
    return tuple(_Teller(timeline).hops())


def route_of(packet: Packet) -> str:
    """Return a packet's addresses, source and destination."""
    if packet.icmp is not None:
        return f"{packet.source.address} > {packet.destination.address}"
    return f"{packet.source} > {packet.destination}"


def _crossings(sightings: Iterable[Sighting]) -> list[_Crossing]:
    """Pair the sightings of segments, datagrams and ICMP errors link by link, in the order in which they were seen."""
    crossings: list[_Crossing] = []
    waiting: list[tuple[int, Sighting]] = []
    for sighting in sightings:
        if not _is_told(sighting.packet):
            continue
        if sighting.outgoing:
            waiting.append((len(crossings), sighting))
            crossings.append(_Crossing(sighting, None))
            continue
        # A link changes nothing: what arrives is, to the last field, what left the other end. A socket is on no link.
        on_link = sighting.interface != LOCAL
        match = next((item for item in waiting if item[1].packet == sighting.packet), None) if on_link else None
        if match is None:
            crossings.append(_Crossing(None, sighting))
        else:
            waiting.remove(match)
            crossings[match[0]] = _Crossing(match[1], sighting)
    return _without_bridges(crossings)


def _without_bridges(crossings: Sequence[_Crossing]) -> list[_Crossing]:
    """Return the crossings without a bridge's own device, to which no link belongs.

    A packet leaves by it before it leaves by a port of it, and so once more often than it arrives. It comes in by it
    behind one of its ports.
    """
    groups: dict[tuple[str, Packet], list[int]] = {}
    for index, one in enumerate(crossings):
        if one.leaving is not None:
            groups.setdefault((one.leaving.host, one.leaving.packet), []).append(index)
    found: list[_Crossing | None] = list(crossings)
    for indexes in groups.values():
        leaving = [crossings[index].leaving for index in indexes]
        names = {one.interface for one in leaving if one is not None}
        if len(indexes) == len(names) > 1 and crossings[indexes[-1]].arriving is None:
            for index, behind in zip(indexes, leaving[1:], strict=False):
                found[index] = _Crossing(behind, crossings[index].arriving)
            found[indexes[-1]] = None
    came: dict[tuple[str, Packet], str] = {}
    for index, one in enumerate(crossings):
        if (arriving := one.arriving) is not None and arriving.interface != LOCAL:
            port = came.setdefault((arriving.host, arriving.packet), arriving.interface)
            if one.leaving is None and port != arriving.interface:
                found[index] = None
    return [one for one in found if one is not None]


def _is_told(packet: Packet) -> bool:
    is_error = packet.icmp is not None and packet.icmp.quoted is not None
    return packet.tcp is not None or is_error or (packet.protocol == UDP and not packet.is_barrier)


class _Teller:
    """Tells of one timeline, crossing by crossing, and remembers what it has told already."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._crossings = _crossings(timeline.sightings)
        of_packet = timeline if isinstance(timeline, PacketTimeline) else None
        self._injected = of_packet.injected if of_packet else None
        self._leak = leaked(of_packet) if of_packet else None
        self._first = of_packet.first_numbers if of_packet else {}
        self._judged = list(timeline.judged)
        self._changes = [
            event.entry
            for event in timeline.entry_events
            if event.entry.protocol == TCP and event.entry.tcp_state and event.kind != "destroy"
        ]
        self._marked: set[str] = set()
        self._came: dict[tuple[str, tuple[object, ...]], Packet] = {}  # to which host, by what translation leaves
        # Each connection's own, by the client's port: there may be several, one after the other.
        self._firsts: dict[int, dict[str, int]] = {}
        for crossing in self._crossings:
            packet = crossing.sighting.packet
            if packet.tcp is not None and packet.tcp.flags & SYN:
                of_client = packet.source not in (timeline.server_address, timeline.target)
                port = (packet.source if of_client else packet.destination).port
                side = timeline.client if of_client else timeline.server
                self._firsts.setdefault(port, {}).setdefault(side, packet.tcp.sequence)

    def hops(self) -> Iterator[Hop]:
        """Yield every crossing with what is to be said about it."""
        start = self._crossings[0].sighting.time if self._crossings else 0
        for crossing in self._crossings:
            packet, arriving = crossing.sighting.packet, crossing.arriving
            judged = _take(self._judged, arriving) if arriving else None
            yield Hop(
                crossing.leaving,
                arriving,
                after=crossing.sighting.time - start,
                route=route_of(packet),
                numbers=self._numbers(packet),
                judged=judged,
                change=(judged and self._change(judged)) or "",
                number=self._mark(crossing),
                before=self._before(crossing),
                is_injected=self._is_injected(packet),
                is_leak=self._is_leak(crossing),
                notes=tuple(self._notes(crossing, judged)),
            )
            if arriving is not None:
                self._came[arriving.host, packet.likeness] = packet

    def _before(self, crossing: _Crossing) -> Packet | None:
        packet = crossing.sighting.packet
        came = self._came.get((crossing.sighting.host, packet.likeness)) if crossing.leaving else None
        return came if came is not None and route_of(came) != route_of(packet) else None

    def _notes(self, crossing: _Crossing, judged: Judged | None) -> Iterator[Note]:
        timeline, packet, arriving = self._timeline, crossing.sighting.packet, crossing.arriving
        injected = self._injected
        if injected is not None and self._is_injected(packet) and crossing.sighting.host == injected.host:
            yield Note(Finding.INJECTED, about(injected))
        if judged is not None and judged.reason:
            kind = Finding.INVALID if judged.state == "invalid" else Finding.REASON
            yield Note(kind, f"kernel: {judged.reason}")
        if arriving is not None and self._is_leak(crossing):
            knows = f"from the pod's address; the client only knows {timeline.target}"
            strange = f"not translated; {arriving.host} has no such connection"
            yield Note(Finding.LEAK, f"OOPS: {knows if arriving.host == timeline.client else strange}")
        if arriving is not None and packet.tcp is not None and packet.tcp.flags & RST and self._is_end(arriving):
            end = timeline.end_of(arriving.host) if isinstance(timeline, ConnectionTimeline) else None
            if end is not None and end.error is not None:
                yield Note(Finding.END, f"{end.host}'s socket: {end.error}")

    def _is_injected(self, packet: Packet) -> bool:
        injected = self._injected
        return injected is not None and packet.likeness == injected.packet.likeness

    def _is_end(self, arriving: Sighting) -> bool:
        """Return whether a packet is where a socket takes it: a node's interfaces come before its translation."""
        return arriving.interface == LOCAL or arriving.host != self._timeline.node

    def _is_leak(self, crossing: _Crossing) -> bool:
        arriving, timeline = crossing.arriving, self._timeline
        if arriving is None or arriving == self._leak:
            return arriving is not None
        # Others leak as well: what comes of the injected packet later, and what is sent again.
        from_pod = arriving.packet.source == timeline.server_address != timeline.target
        return from_pod and arriving.host == timeline.client and self._is_end(arriving)

    def _numbers(self, packet: Packet) -> str:
        tcp, timeline = packet.tcp, self._timeline
        if packet.protocol == UDP:
            return f"UDP len {packet.payload_length}"
        if tcp is None:
            return _error(packet)
        first = self._first_numbers(packet)
        own, other = timeline.client, timeline.server
        if packet.source in (timeline.server_address, timeline.target):
            own, other = other, own
        words = [tcp.flag_names, f"seq {distance(first[own], tcp.sequence) if own in first else tcp.sequence}"]
        if packet.payload_length:
            words.append(f"len {packet.payload_length}")
        if tcp.flags & ACK:
            number = tcp.acknowledgement
            words.append(f"ack {distance(first[other], number) if other in first else number}")
        return " ".join(words)

    def _first_numbers(self, packet: Packet) -> dict[str, int]:
        """Return both sides' initial sequence numbers of a segment's connection."""
        for port in (packet.source.port, packet.destination.port):
            if port in self._firsts:
                return self._first | self._firsts[port]
        return self._first

    def _change(self, note: Judged) -> str | None:
        """Take the entry's next change if this packet can bring it about: events come in the packets' order.

        What is INVALID or ignored changes no entry.
        """
        packet, idle = note.packet, note.judgement in (Judgement.INVALID, Judgement.IGNORED)
        if not self._changes or idle or note.host != self._timeline.node or packet.tcp is None:
            return None
        entry = self._changes[0]
        if (packet.source, packet.destination) not in (entry.original, entry.reply):
            return None  # of another connection, or it got no entry
        cause = _CAUSES.get(entry.tcp_state or "", 0)
        looked_at = SYN | ACK if cause == SYN else cause
        return self._changes.pop(0).tcp_state if cause and packet.tcp.flags & looked_at == cause else None

    def _mark(self, crossing: _Crossing) -> str:
        """Return the figure's number for a crossing, empty for packets that it does not show."""
        timeline, packet = self._timeline, crossing.sighting.packet
        clients = (timeline.client_address, timeline.peer_address)
        number = ""
        if self._leak is not None and self._is_injected(packet):
            number = "(4)" if self._is_leak(crossing) else "(3)"
        elif packet.tcp is not None and packet.tcp.flags & RST and packet.source in clients:
            number = "(5)"
        elif packet.tcp is not None and packet.source == timeline.client_address and packet.payload_length:
            number = "(1)" if packet.destination == timeline.target else "(2)"
        if number in self._marked:
            return ""
        self._marked.add(number)
        return number


def _error(packet: Packet) -> str:
    message = packet.icmp
    assert message is not None
    assert message.quoted is not None
    protocol = "ICMP" if packet.protocol == ICMP else "ICMPv6"
    source, destination = message.quoted
    return f"{protocol} type {message.kind} code {message.code} about {source} > {destination}"


def _take(judged: list[Judged], arriving: Sighting) -> Judged | None:
    """Take the judgement of a packet where it arrived out of those that are left: the same packet may come twice."""
    for index, note in enumerate(judged):
        if note.host == arriving.host and note.packet == arriving.packet:
            return judged.pop(index)
    return None
