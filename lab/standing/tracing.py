# SPDX-License-Identifier: MIT
"""Sending one packet of somebody's own in a lab that stands, and handing on which rules it met there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import TypeAdapter

from lab.conntrack.flows import Flow, Flows
from lab.errors import InputError
from lab.evidence.packet import Ends, SocketAddress
from lab.fabric.lab import lent_beside_others
from lab.scenario.own_flow import ends_of
from lab.scenario.own_packet import OwnPacketScenario, Protocol, TracedPacket, Wanted, checked
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
    :param service: whose endpoints have roles; None for the first, or for any host where there is none.
    """

    host: str | None
    port: int | None
    destination: SocketAddress
    protocol: Protocol
    flags: str
    service: str | None

    def made_in(self, topology: Topology) -> Wanted:
        """Return it as its sender is to send it.

        :raises InputError: nobody can send it there.
        """
        host = self.host or (topology.clients or topology.hosts)[0].name
        return checked(topology, Wanted(host, self.destination, self.protocol, self.flags, self.port))


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
    roles = _roles(topology, family, asked.service)
    before = {(node, *ends_of(one)) for node, one in _flows(lab)}
    with lent_beside_others(lab, traced=True):
        scenario = OwnPacketScenario(lab, roles, family)
        try:
            traced = scenario.send(wanted, partial(_free_port, lab))
        finally:
            _forget(lab, scenario.ends, before)
    return TypeAdapter(TracedPacket).dump_json(traced).decode()


def from_json(text: str) -> TracedPacket:
    """Return what :func:`trace` has written."""
    return TypeAdapter(TracedPacket).validate_json(text)


def _roles(topology: Topology, family: Family, service: str | None) -> Roles:
    """Return the roles of a Service; there need not be one where none is named."""
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


def _forget(lab: Lab, ends: set[tuple[int, Ends]], before: set[_Entry]) -> None:
    """Delete the entries that a packet has made, and none that were there before."""
    for node in lab.topology.nodes:

        def chosen(flows: Iterable[Flow], node: str = node.name) -> list[Flow]:
            return [one for one in flows if (node, *ends_of(one)) not in before and ends_of(one) in ends]

        Flows(lab.hosts[node.name].namespace).delete_those(chosen)
