# SPDX-License-Identifier: MIT
"""One connection or datagram from a client to an address of a Service, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab.evidence.entry import Entry
from lab.evidence.packet import ACK, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP, Packet, SocketAddress
from lab.evidence.sighting import Sighting

#: Their numbers in an IP header, by the names that Services use, in lower case.
PROTOCOLS: Final = {"tcp": TCP, "udp": UDP, "sctp": SCTP}

# RFC 792 and RFC 1812, 5.2.7.1; RFC 4443, 3.1. What icmp_err_convert (net/ipv4/icmp.c) and icmpv6_err_convert make of
# those of "refused" is ECONNREFUSED.
_ICMP_REFUSED: Final = {(ICMP, 3, 3), (ICMP, 3, 2), (ICMPV6, 1, 4)}
_ICMP_WORDS: Final = {
    (ICMP, 3, 0): "network unreachable",
    (ICMP, 3, 1): "host unreachable",
    (ICMP, 3, 2): "protocol unreachable",
    (ICMP, 3, 3): "port unreachable",
    (ICMP, 3, 9): "network prohibited",
    (ICMP, 3, 10): "host prohibited",
    (ICMP, 3, 13): "administratively prohibited",
    (ICMP, 11, 0): "time exceeded",
    (ICMPV6, 1, 0): "no route",
    (ICMPV6, 1, 1): "administratively prohibited",
    (ICMPV6, 1, 3): "address unreachable",
    (ICMPV6, 1, 4): "port unreachable",
    (ICMPV6, 3, 0): "hop limit exceeded",
}
_EXCEEDED: Final = {(ICMP, 11, 0), (ICMPV6, 3, 0)}


class Target(StrEnum):
    """Which of a Service's addresses is asked."""

    VIP = "vip"
    NODE_PORT = "nodeport"
    LOAD_BALANCER = "loadbalancer"
    EXTERNAL_IP = "external-ip"
    LOCALHOST = "localhost"
    ENDPOINT = "endpoint"


class Fate(StrEnum):
    """What became of a question."""

    CONNECTED = "connected"
    REFUSED = "refused"
    NO_WAY = "no way"
    TIMES_OUT = "times out"
    STRANGER = "answered by a stranger"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Question:
    """What one client asks.

    :param client: a host.
    :param protocol: tcp, udp or sctp.
    :param source: the address that it asks from; None for its first one, or what a node's kernel chooses.
    """

    client: str
    target: Target
    address: SocketAddress
    protocol: str = "tcp"
    source: str | None = None

    def __str__(self) -> str:
        return f"{self.client} to {self.target} {self.address}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of a question, and how it is known.

    :param own: the client's address and port; None where it has no route.
    :param server: the host that answered, and ``server_address`` the address and port at which it did.
    :param seen_as: whom the server took for its client.
    :param at: the host that refused, had no way, or was the last to have the packet.
    :param how: by what it refused, or what became of the packet there, in words.
    :param sent_on: whether it was last seen as it left that host, to come nowhere.
    :param node: the first node that the packet passed, and ``entry`` what its conntrack has of it.
    :param rule: which rule dropped its packet or what answered it, at which host, or chose its destination, or where
        it vanished without one; empty where nothing of the kind was, or nothing was traced.
    """

    question: Question
    fate: Fate
    own: SocketAddress | None = None
    server: str = ""
    server_address: SocketAddress | None = None
    seen_as: SocketAddress | None = None
    at: str = ""
    how: str = ""
    sent_on: bool = False
    node: str = ""
    entry: Entry | None = None
    rule: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the server saw the client's own address."""
        return self.own is not None and self.seen_as is not None and self.own.address == self.seen_as.address

    @property
    def words(self) -> str:
        """What became of it, in few words."""
        if self.fate is Fate.CONNECTED:
            assert self.seen_as is not None
            return f"{self.server}, as {self.seen_as.address}"
        if self.fate is Fate.REFUSED:
            return f"refused by {self.at} ({self.how.partition(':')[0]})"
        if self.fate is Fate.STRANGER:
            return f"{self.fate}: {self.how}"
        return f"{self.fate} at {self.at}" if self.at else str(self.fate)

    @property
    def known_by(self) -> str:
        """Everything that is known of it, in a line."""
        parts = [str(self.fate) if self.fate is not Fate.STRANGER else f"{self.fate}: {self.how}"]
        if self.server:
            parts.append(f"by {self.server} at {self.server_address}")
        if self.seen_as is not None and self.own is not None:
            kept = "kept" if self.is_kept else f"masqueraded to {self.seen_as.address}"
            parts.append(f"source {self.own.address} {kept}")
        if self.at:
            parts.append(f"at {self.at}{f', {self.how}' if self.how else ''}")
        if self.rule:
            parts.append(self.rule)
        if self.entry is not None:
            parts.append(f"{self.node} has {self.entry}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Passage:
    """The packets of one question, as captures on all hosts saw them, in order.

    :param own: the address and port that the client asked from, as its kernel tells.
    """

    question: Question
    own: SocketAddress
    sightings: Sequence[Sighting]

    @property
    def first(self) -> Packet | None:
        """The packet with which the client asked; None where no capture saw it leave."""
        for one in self.sightings:
            packet = one.packet
            if one.host == self.question.client and (packet.source, packet.destination) == self._ends:
                return packet
        return None

    @property
    def _ends(self) -> tuple[SocketAddress, SocketAddress]:
        return self.own, self.question.address

    def refusal(self) -> tuple[Fate, str, str] | None:
        """Return the fate, the host and the words of an error that came to the client; None where none came."""
        for one in self._incoming():
            packet = one.packet
            if packet.icmp is not None and packet.icmp.quoted == self._ends:
                key = (packet.protocol, packet.icmp.kind, packet.icmp.code)
                if key in _ICMP_WORDS:
                    fate = Fate.REFUSED if key in _ICMP_REFUSED else Fate.NO_WAY
                    circle = ": it went in a circle" if key in _EXCEEDED and self._came_again() else ""
                    return fate, self._origin(packet), f"ICMP: {_ICMP_WORDS[key]}{circle}"
            is_reset = packet.tcp is not None and packet.tcp.flags & RST
            if is_reset and (packet.destination, packet.source) == self._ends:
                return Fate.REFUSED, self._origin(packet), "RST"
        return None

    def _came_again(self) -> bool:
        """Check whether the question came in twice by one interface."""
        came = (
            [(one.host, one.interface) for one in self._sightings_of(self.first) if not one.outgoing]
            if self.first
            else []
        )
        return len(set(came)) < len(came)

    def refused_by_answer(self) -> tuple[Fate, str, str] | None:
        """Return the fate, the host and the words of an SCTP client's refusal, whose own kernel has told of one.

        It was an ABORT (RFC 9260, 8.4) that came in at the client, as the last packet that was seen of it.
        """
        last, is_answer = self.last_sighting()
        if self.question.protocol != "sctp" or last is None or not is_answer or last.host != self.question.client:
            return None
        return Fate.REFUSED, self._origin(last.packet), "ABORT"

    def went_on(self) -> bool:
        """Check whether the client sent more after an answer had come in: the third packet of a handshake."""
        last, is_answer = self.last_sighting()
        if last is None or not is_answer or last.host != self.question.client:
            return False
        return any(
            one.host == last.host and one.outgoing and one.time > last.time
            for one in self.sightings
            if (one.packet.source, one.packet.destination) == self._ends
        )

    def stranger(self) -> SocketAddress | None:
        """Return another address than the one asked from which somebody answered; None where nobody did."""
        for one in self._incoming():
            packet = one.packet
            if packet.protocol != PROTOCOLS[self.question.protocol] or packet.destination != self.own:
                continue
            answers = packet.tcp is None or packet.tcp.flags & (SYN | ACK) == SYN | ACK
            if answers and packet.source != self.question.address:
                return packet.source
        return None

    def last(self) -> tuple[str, str, bool]:
        """Return the host at which the question was seen last, or its answer where there was one.

        And what became of it there, in words, and whether it left that host.
        """
        last, is_answer = self.last_sighting()
        if last is None:
            return self.question.client, "it did not leave", False
        what = "the answer" if is_answer else "it"
        if last.outgoing:
            return last.host, f"{what} left by {last.interface} and came nowhere", True
        return last.host, f"{what} came in by {last.interface} and went no further", False

    def arrival(self, has: Callable[[str, str], bool]) -> tuple[str, Packet] | None:
        """Return the host at whose own address the question came in last, and the packet as it was there.

        :param has: whether a host has an address.
        """
        first = self.first
        passed: set[tuple[SocketAddress, SocketAddress]] = set()
        found = None
        for one in self._sightings_of(first) if first else ():
            ends = (one.packet.source, one.packet.destination)
            if ends[::-1] in passed:
                continue  # its answer, which may be as long and have no number either
            passed.add(ends)
            if not one.outgoing and has(one.host, one.packet.destination.address):
                found = one.host, one.packet
        return found

    def is_acknowledged_at(self, host: str) -> bool:
        """Check whether the acknowledgement that ends the client's handshake came to a host (RFC 9293, 3.5)."""
        sent = {
            one.packet.likeness
            for one in self.sightings
            if one.host == self.question.client
            and one.packet.tcp is not None
            and one.packet.tcp.flags & (SYN | ACK | RST) == ACK
            and (one.packet.source, one.packet.destination) == self._ends
        }
        return any(one.host == host and not one.outgoing and one.packet.likeness in sent for one in self.sightings)

    def last_sighting(self) -> tuple[Sighting | None, bool]:
        """Return where the question was seen last, or its answer where there was one, and whether it is the answer."""
        first = self.first
        if first is None:
            return None, False
        seen = self._sightings_of(first)
        answer = next((one.packet for one in self.sightings if _answers(one.packet, first, seen[-1].packet)), None)
        answers = self._sightings_of(answer) if answer else []
        return (answers or seen)[-1], bool(answers)

    def passed(self) -> tuple[str, ...]:
        """Return the hosts that the question passed, in order, its client first."""
        first = self.first
        likeness = first.likeness if first else None
        hosts = (one.host for one in self.sightings if one.packet.likeness == likeness)
        return tuple(dict.fromkeys((self.question.client, *hosts)))

    def _sightings_of(self, packet: Packet) -> list[Sighting]:
        return [one for one in self.sightings if one.packet.likeness == packet.likeness]

    def _incoming(self) -> list[Sighting]:
        client = self.question.client
        return [one for one in self.sightings if one.host == client and not one.outgoing]

    def _origin(self, packet: Packet) -> str:
        """Return the host at which a packet was seen first since the question was asked: it made it.

        Before, others may have been seen that are like it: all ICMPv6 errors of one kind are, and a server that waits
        for an earlier client sends its SYN,ACK again a second later.
        """
        asked = min((one.time for one in self._sightings_of(self.first)), default=0) if self.first else 0
        return next(one.host for one in self._sightings_of(packet) if one.time >= asked)


def _answers(packet: Packet, question: Packet, translated: Packet) -> bool:
    """Check whether a packet answers a question.

    :param translated: the question as it was seen last.
    """
    if packet.tcp is not None and question.tcp is not None:
        is_syn_ack = packet.tcp.flags & (SYN | ACK) == SYN | ACK
        return is_syn_ack and packet.tcp.acknowledgement == question.end
    ends = (translated.source, translated.destination)
    return packet.protocol == question.protocol and (packet.destination, packet.source) == ends
