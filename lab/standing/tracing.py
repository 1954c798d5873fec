# SPDX-License-Identifier: MIT
"""Sending one packet of somebody's own in a lab that stands, and handing on which rules it met there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import TypeAdapter

from lab.conntrack.flows import Flow, Flows
from lab.errors import InputError
from lab.evidence.packet import BARRIER_PORT, UDP, Ends, SocketAddress
from lab.fabric.lab import lent_beside_others
from lab.scenario.own_flow import ends_of
from lab.scenario.own_packet import OwnPacket, OwnPacketScenario, Protocol, Sent, own_packet
from lab.scenario.roles import CLIENT_PORT, Roles, roles_without_service
from lab.trial.own_packet import roles_for
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.fabric.lab import Lab
    from lab.topology.model import Topology

#: A node's, by the protocol's number and the ends of its first packet.
_Entry: TypeAlias = tuple[str, int, Ends]


@dataclass(frozen=True)
class Asked:
    """A packet that somebody wants to be sent.

    :param host: who sends it; None for the first client.
    :param port: from which port; None for one that no entry has.
    :param service: behind whose endpoints a barrier is sent; None for the first, or for any host where there is none.
    """

    host: str | None
    port: int | None
    destination: SocketAddress
    protocol: Protocol
    flags: str
    service: str | None

    def made_in(self, topology: Topology) -> OwnPacket:
        """Return it as its sender has it, from the client's usual port where none is wanted.

        :raises InputError: nobody can send it there.
        """
        host = self.host or (topology.clients or topology.hosts)[0].name
        port = self.port or CLIENT_PORT
        return own_packet(topology, host, self.destination, port=port, protocol=self.protocol, flags=self.flags)


@dataclass(frozen=True)
class Traced:
    """What was sent, and what became of it."""

    packet: OwnPacket
    sent: Sent


async def trace(lab: Lab, given: dict[str, Any]) -> str:
    """Have a packet sent, and return what became of it as JSON; entries that are new are deleted behind it.

    :param given: an :class:`Asked` that came by JSON.
    :raises InputError: it cannot be sent.
    :raises LabError: an instrument failed.
    """
    asked = TypeAdapter(Asked).validate_python(given)
    family = Family.of(ip_address(asked.destination.address))
    if family not in lab.families:
        raise InputError(f"this lab was built without {family}")
    topology = lab.current
    wanted = asked.made_in(topology)
    if asked.port is None:
        own = wanted.source.address
        wanted = replace(wanted, source=SocketAddress(own, _free_port(lab, own)))
    roles = _roles(topology, family, asked.service)
    before = {(node, *ends_of(one)) for node, one in _flows(lab)}
    with lent_beside_others(lab, traced=True):
        scenario = OwnPacketScenario(lab, roles, family)
        try:
            sent = await scenario.send(wanted)
        finally:
            _forget(lab, scenario.ends, before)
    return TypeAdapter(Traced).dump_json(Traced(wanted, sent)).decode()


def from_json(text: str) -> Traced:
    """Return what :func:`trace` has written."""
    return TypeAdapter(Traced).validate_json(text)


def _roles(topology: Topology, family: Family, service: str | None) -> Roles:
    """Return between whom a barrier is sent; that needs no Service where none is named."""
    try:
        return roles_for(topology, family, service)
    except InputError:
        found = roles_without_service(topology, family) if service is None else None
        if found is None:
            raise
        return found


def _flows(lab: Lab) -> Iterator[tuple[str, Flow]]:
    return ((node.name, one) for node in lab.topology.nodes for one in Flows(lab.hosts[node.name].namespace))


def _free_port(lab: Lab, address: str) -> int:
    """Return a port of an address that no node's entry has."""
    taken = {ends_of(one)[1][0] for _node, one in _flows(lab)}
    return next(port for port in range(CLIENT_PORT, 1 << 16) if SocketAddress(address, port) not in taken)


def _is_of(ends: set[tuple[int, Ends]], protocol: int, its: Ends) -> bool:
    return (protocol, its) in ends or (protocol == UDP and its[1].port == BARRIER_PORT)


def _forget(lab: Lab, ends: set[tuple[int, Ends]], before: set[_Entry]) -> None:
    """Delete the entries that a packet and its barriers have made, and none that were there before."""
    for node in lab.topology.nodes:

        def chosen(flows: Iterable[Flow], node: str = node.name) -> list[Flow]:
            return [one for one in flows if (node, *ends_of(one)) not in before and _is_of(ends, *ends_of(one))]

        Flows(lab.hosts[node.name].namespace).delete_those(chosen)
