"""Who plays in a trial, and under which addresses they know each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.errors import InputError
from lab.kubeproxy import ProxyOptions
from lab.kubeproxy.services import service_ports
from lab.topology.model import Topology
from lab.topology.ways import way
from lab.wire.packet import SocketAddress
from lab.words import Family

CLIENT_PORT: Final = 34567  # the figure's


@dataclass(frozen=True)
class Cast:
    """Who plays: the hosts by name and the addresses that they know each other by.

    :param node: whose conntrack is followed; it may be the client itself (hostNetwork).
    :param servers: the endpoints behind the service, as (host, address). Which of them plays is for the node's rules
        to choose.
    """

    client: str
    node: str
    client_address: SocketAddress
    servers: tuple[tuple[str, SocketAddress], ...]
    service_address: SocketAddress | None


def cast(topology: Topology, family: Family, client: str | None = None) -> Cast:
    """Choose who plays in a topology: its first client, the endpoints of its first service, and the node between them.

    :param client: who asks, instead of the first client; a node asks from the address that is nearest to the first
        endpoint.
    :raises InputError: someone is missing.
    """
    if not topology.nodes or not (client or topology.clients):
        raise InputError(
            f"{topology.name}: a trial needs a client and a node with proxy-mode",
            cure="take one from `lab list`",
        )
    client = client or topology.clients[0].name
    for port in service_ports(topology.services, topology.endpoint_slices, ProxyOptions(family=family)):
        servers = tuple(
            (host.name, SocketAddress(target.address, target.port))
            for target in port.endpoints.reachable
            if (host := topology.host_of(target.address)) is not None
        )
        own = _own_address(topology, client, servers, family) if servers else None
        if port.protocol == "tcp" and own is not None:
            service = SocketAddress(port.cluster_ip, port.port)
            address = SocketAddress(own, CLIENT_PORT)
            return Cast(client, judge(topology, client, address, servers[0], service), address, servers, service)
    raise InputError(
        f"{topology.name}: no TCP service with an {family} endpoint that a host has",
        cure="add a Service and an EndpointSlice of this family, or take the other --family",
    )


def judge(
    topology: Topology,
    client: str,
    client_address: SocketAddress,
    server: tuple[str, SocketAddress],
    service_address: SocketAddress | None = None,
) -> str:
    """Return the node whose conntrack judges: the first that the client's packets pass, else the first of the answers.

    :param service_address: the VIP, where the client asks by it: the first node on the way there translates.
    :raises InputError: neither direction passes a node.
    """
    host, address = server
    ways = [
        way(topology, client, service_address.address) if service_address else (),
        way(topology, client, address.address),
        way(topology, host, client_address.address),
    ]
    nodes = {node.name for node in topology.nodes}
    for passed in ways:
        if found := next((one for one in passed if one in nodes), None):
            return found
    raise InputError(
        f"{topology.name}: no node with proxy-mode is on the way between {client} and {host}",
        cure="give the hosts routes by a node",
    )


def by_node_port(topology: Topology, family: Family, client: str) -> Cast:
    """Choose as :func:`cast` does, for a client that asks the first node by the service's node port.

    :raises InputError: someone is missing, or the first TCP service has no node port.
    """
    players = cast(topology, family, client)
    options = ProxyOptions(family=family)
    for port in service_ports(topology.services, topology.endpoint_slices, options):
        if port.protocol == "tcp" and port.node_port:
            address = str(topology.addresses(players.node, family)[0])
            return replace(players, service_address=SocketAddress(address, port.node_port))
    raise InputError(f"{topology.name}: no TCP service with a node port", cure="give one a nodePort, type: NodePort")


def _own_address(
    topology: Topology, client: str, servers: tuple[tuple[str, SocketAddress], ...], family: Family
) -> str | None:
    """Return the address on the link to the first server where there is one, else the client's first."""
    for end in topology.ends(client):
        if topology.peer(end).host == servers[0][0]:
            return next((str(own.ip) for own in end.addresses if Family.of(own) is family), None)
    return next((str(own) for own in topology.addresses(client, family)), None)
