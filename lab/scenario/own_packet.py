# SPDX-License-Identifier: MIT
"""One packet of somebody's own, sent by a host of a lab, and where it went."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from lab.errors import InputError, nearest
from lab.evidence.packet import BARRIER_PORT, Ends, Packet, SocketAddress, decode, is_error
from lab.evidence.sighting import Sighting
from lab.evidence.timeline import end_of_way
from lab.evidence.walk import Walk, kin
from lab.fabric.lab import Lab
from lab.scenario.instrumented import Instrumented
from lab.scenario.own_flow import OwnFlow
from lab.scenario.own_stack import chosen_by, words_of
from lab.scenario.roles import CLIENT_PORT, Roles
from lab.scenario.unrouted import why_unrouted
from lab.topology.model import Topology
from lab.traffic.tcp import address_family, listen
from lab.vocabulary import Family
from lab.wire.backlog import Backlog
from lab.wire.craft import Datagram, Segment, craft

_SEQUENCE, _WINDOW = 1_000, 65_535  # of a segment of no connection; any would do


class Protocol(StrEnum):
    """What a packet of one's own may be."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class Wanted:
    """A packet that somebody wants to be sent, without what its sender's stack chooses.

    :param host: whose stack sends it.
    :param flags: of TCP, as scapy writes them.
    :param port: from which; None for any that is free.
    :param source: from which address; None for what the stack chooses.
    """

    host: str
    destination: SocketAddress
    protocol: Protocol = Protocol.TCP
    flags: str = "S"
    port: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class OwnPacket:
    """A packet to be sent.

    :param host: whose stack sends it.
    :param flags: of TCP, as scapy writes them.
    :param hop_limit: its TTL or hop limit.
    """

    host: str
    source: SocketAddress
    destination: SocketAddress
    protocol: Protocol = Protocol.TCP
    flags: str = "S"
    hop_limit: int = 64

    @property
    def data(self) -> bytes:
        """The packet, with its checksums but for that of IPv4's header, which the kernel writes (raw(7))."""
        data = bytearray(self._crafted)
        data[7 if data[0] >> 4 == 6 else 8] = self.hop_limit  # RFC 8200, 3; RFC 791, 3.1
        return bytes(data)

    @property
    def _crafted(self) -> bytes:
        if self.protocol is Protocol.UDP:
            return craft(Datagram(self.source, self.destination, b"lab"))
        acknowledgement = _SEQUENCE if "A" in self.flags else 0
        return craft(Segment(self.source, self.destination, _SEQUENCE, acknowledgement, self.flags, _WINDOW))


@dataclass(frozen=True)
class Sent:
    """What became of a packet that was sent.

    :param refusal: why its sender's stack did not send it; empty where it did.
    :param walks: its own and those of what was said to it, node by node.
    :param untraced: in sentences, what of them could not be told.
    :param end: where it was seen last.
    :param answers: what came to its sender since.
    :param faults: what is wrong with the instruments.
    """

    packet: Packet
    refusal: str
    walks: tuple[Walk, ...]
    untraced: tuple[str, ...]
    end: str
    answers: tuple[Packet, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class TracedPacket:
    """A packet of the user's own as it was sent, and what became of it."""

    packet: OwnPacket
    sent: Sent


def checked(topology: Topology, wanted: Wanted) -> Wanted:
    """Return a packet that a host of a topology can send, and that comes to a node.

    :raises InputError: there is no such host, it has no address to send from, or nobody would trace the packet.
    """
    host, destination = wanted.host, wanted.destination
    if wanted.protocol is Protocol.UDP and BARRIER_PORT in (wanted.port, destination.port):
        raise InputError(f"UDP's port {BARRIER_PORT} is that of the lab's own datagrams", cure="take another")
    names = [one.name for one in topology.hosts]
    if host not in names:
        raise InputError(f"{topology.name}: there is no host {host!r}", cure=nearest(host, names))
    family = Family.IPV6 if ":" in destination.address else Family.IPV4
    its, to = topology.addresses(host, family), ip_address(destination.address)
    if topology.host(host).proxy_mode is None and (to in its or to.is_loopback or to.is_unspecified):
        raise InputError(
            f"{to} is {host}'s own: a packet to it comes to no node", cure="take another, or a node as sender"
        )
    if not its:
        raise InputError(f"{topology.name}: {host} has no {family} address to send from", cure="give it one")
    return wanted


class OwnPacketScenario(Instrumented):
    """A lab in which one packet is sent, with servers at the endpoints. Made inside the running event loop.

    :ivar ends: that the packet and what answered it had on their ways, with the protocol's number.
    """

    def __init__(self, lab: Lab, roles: Roles, family: Family) -> None:
        super().__init__(lab, roles, family)
        self.ends: set[tuple[int, Ends]] = set()
        self._backlog = lab.keep(Backlog())
        self._backlog.await_timestamps()
        for host, address in roles.servers if not lab.has_others else ():  # whose own servers answer
            lab.keep(listen(lab.hosts[host].namespace, address))

    def send(self, wanted: Wanted, free_port: Callable[[str], int] = lambda _address: CLIENT_PORT) -> TracedPacket:
        """Send a packet by its host's own stack, wait until its effect is over, and return what became of it.

        :param free_port: returns a port of an address for a packet of which none is wanted.
        """
        chosen = chosen_by(self.lab.hosts[wanted.host], wanted.destination.address)
        address = wanted.source or chosen.source
        source = SocketAddress(address, free_port(address) if wanted.port is None else wanted.port)
        own = OwnPacket(wanted.host, source, wanted.destination, wanted.protocol, wanted.flags, chosen.hop_limit)
        packet = decode(own.data)
        if packet is None:
            raise InputError(f"the lab cannot read the packet that it is to send: {own}")
        flow = OwnFlow(packet.protocol, (packet.source, packet.destination))
        self.ends = flow.ends
        flow.recognize(packet)  # of a node's own the first sighting may be translated already
        refusal = chosen.refusal or self._send(own)
        self._settle(flow)
        return TracedPacket(own, self._became(own, packet, flow, refusal))

    def _settle(self, flow: OwnFlow) -> None:
        """Read what a packet led to, until nothing of it is under way."""
        sighted = judged = 0

        def came() -> bool:
            nonlocal sighted, judged
            self.recorder.read()
            new = sorted(self.recorder.sightings[sighted:], key=lambda one: one.time)
            # What goes by a node's loopback, where nothing is sighted, its conntrack has judged.
            packets = [*(one.packet for one in new), *(one.packet for one in self.recorder.judged[judged:])]
            sighted, judged = len(self.recorder.sightings), len(self.recorder.judged)
            return bool([packet for packet in packets if flow.has(packet)])  # which is to see each

        self._backlog.settle(came)

    def _became(self, own: OwnPacket, packet: Packet, flow: OwnFlow, refusal: str) -> Sent:
        """Return what became of a packet, now that all of it is over."""
        passed = sorted(self.recorder.sightings, key=lambda one: one.time)
        seen = [one for one in passed if flow.has(one.packet)]
        kindred = {kin(packet), *(kin(one.packet) for one in seen)}
        walks, untraced = self._tracing.walks(packet, kindred) if self._tracing else ((), ())
        about_it = _answers([one for one in seen if one.host == own.host], own.source)
        where = self._ended(packet, seen, is_answered=bool(about_it))
        self.recorder.stop()
        self._faults += self.recorder.missed()
        return Sent(packet, refusal, walks, untraced, where, about_it, tuple(dict.fromkeys(self._faults)))

    def _ended(self, packet: Packet, seen: list[Sighting], *, is_answered: bool) -> str:
        """Return where a packet was seen last, and why nobody answers it where that is known."""
        end = end_of_way(packet, seen)
        if end is None or end.outgoing or end.host in self._nodes.names or not self._is_local(end):
            return self.lost_where(packet)
        why = "" if is_answered else why_unrouted(self.lab, end)
        return f"came to {end.host} as {end.packet}{why and f': {why}'}"

    def _is_local(self, end: Sighting) -> bool:
        return self.lab.hosts[end.host].routes.is_local(ip_address(end.packet.destination.address))

    def _send(self, own: OwnPacket) -> str:
        namespace = self.lab.hosts[own.host].namespace
        kind = address_family(own.destination.address)
        with namespace.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            try:
                sender.sendto(own.data, (own.destination.address, 0))
            except OSError as error:
                return words_of(error)  # a rule of its own that drops it says EPERM, which the walk tells as well
        return ""


def _answers(seen: Sequence[Sighting], sender: SocketAddress) -> tuple[Packet, ...]:
    """Return what came to a sender of what its host saw, but for its own packets that were sent back to it."""
    sent = {kin(one.packet) for one in seen if one.outgoing}
    came = (one.packet for one in seen if not one.outgoing and one.packet.destination.address == sender.address)
    its = (one for one in came if one.destination == sender or is_error(one) or kin(one) not in sent)
    return tuple(dict.fromkeys(its))
