# SPDX-License-Identifier: MIT
"""One packet of somebody's own, sent by a host of a lab, and where it went."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
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
from lab.scenario.roles import CLIENT_PORT, Roles
from lab.topology.model import Topology
from lab.topology.ways import way_out
from lab.traffic.tcp import address_family, listen
from lab.vocabulary import Family
from lab.wire.craft import Datagram, Segment, craft

_SEQUENCE, _WINDOW = 1_000, 65_535  # of a segment of no connection; any would do


class Protocol(StrEnum):
    """What a packet of one's own may be."""

    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class OwnPacket:
    """A packet to be sent.

    :param host: whose stack sends it.
    :param flags: of TCP, as scapy writes them.
    """

    host: str
    source: SocketAddress
    destination: SocketAddress
    protocol: Protocol = Protocol.TCP
    flags: str = "S"

    @property
    def data(self) -> bytes:
        """The packet, with its checksums."""
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


def own_packet(
    topology: Topology,
    host: str,
    destination: SocketAddress,
    *,
    port: int = CLIENT_PORT,
    protocol: Protocol = Protocol.TCP,
    flags: str = "S",
) -> OwnPacket:
    """Return the packet that a host would send to an address: from its own that is on the way there.

    :raises InputError: there is no such host, it has no address to send from, or nobody would trace the packet.
    """
    if protocol is Protocol.UDP and BARRIER_PORT in (port, destination.port):
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
    end = way_out(topology, host, destination.address)
    near = [own.ip for own in end.addresses if Family.of(own) is family] if end else []
    addresses = near or its
    if not addresses:
        raise InputError(f"{topology.name}: {host} has no {family} address to send from", cure="give it one")
    return OwnPacket(host, SocketAddress(str(addresses[0]), port), destination, protocol, flags)


class OwnPacketScenario(Instrumented):
    """A lab in which one packet is sent, with servers at the endpoints. Made inside the running event loop.

    :ivar ends: that the packet and what answered it had on their ways, with the protocol's number.
    """

    def __init__(self, lab: Lab, roles: Roles, family: Family) -> None:
        super().__init__(lab, roles, family)
        self.ends: set[tuple[int, Ends]] = set()
        for host, address in roles.servers if not lab.has_others else ():  # whose own servers answer
            lab.keep(listen(lab.hosts[host].namespace, address))

    async def send(self, wanted: OwnPacket) -> Sent:
        """Send a packet by its host's own stack, wait until its effect is over, and return what became of it."""
        packet = decode(wanted.data)
        if packet is None:
            raise InputError(f"the lab cannot read the packet that it is to send: {wanted}")
        flow = OwnFlow(packet.protocol, (packet.source, packet.destination))
        self.ends = flow.ends
        flow.recognize(packet)  # of a node's own the first sighting may be translated already
        refusal = self._send(wanted)
        await self.barrier()
        passed = sorted(self.recorder.sightings, key=lambda one: one.time)
        seen = [one for one in passed if not one.packet.is_barrier and flow.has(one.packet)]
        own = {kin(packet), *(kin(one.packet) for one in seen)}
        walks, untraced = self._tracing.walks(packet, own) if self._tracing else ((), ())
        end = end_of_way(packet, seen)
        where = self.lost_where(packet)
        if end is not None and not end.outgoing and end.host not in self._nodes.names:
            where = f"came to {end.host} as {end.packet}"
        about_it = _answers([one for one in seen if one.host == wanted.host], wanted.source)
        self.recorder.stop()
        self._faults += self.recorder.missed()
        return Sent(packet, refusal, walks, untraced, where, about_it, tuple(dict.fromkeys(self._faults)))

    def _send(self, wanted: OwnPacket) -> str:
        namespace = self.lab.hosts[wanted.host].namespace
        kind = address_family(wanted.destination.address)
        with namespace.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            try:
                sender.sendto(wanted.data, (wanted.destination.address, 0))
            except OSError as error:
                # A rule of its own that drops it says EPERM, which the walk tells as well.
                return f"{errno.errorcode.get(error.errno or 0, '')} ({error.strerror or error})".lstrip()
        return ""


def _answers(seen: Sequence[Sighting], sender: SocketAddress) -> tuple[Packet, ...]:
    """Return what came to a sender of what its host saw, but for its own packets that were sent back to it."""
    sent = {kin(one.packet) for one in seen if one.outgoing}
    came = (one.packet for one in seen if not one.outgoing and one.packet.destination.address == sender.address)
    its = (one for one in came if one.destination == sender or is_error(one) or kin(one) not in sent)
    return tuple(dict.fromkeys(its))
