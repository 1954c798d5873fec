# SPDX-License-Identifier: MIT
"""The roles in a trial, and under which addresses they know each other."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lab.errors import InputError, ServiceError, nearest
from lab.evidence.packet import SocketAddress
from lab.kubeproxy import MINORS, ProxyOptions
from lab.kubeproxy.services import ServicePort, service_ports
from lab.topology.model import Topology
from lab.topology.routes import node_address
from lab.topology.ways import way
from lab.vocabulary import Family

CLIENT_PORT: Final = 34567  # the figure's
_SERVICE: Final = re.compile(r"([^/:\s]+/)?[^/:\s]+(:[^/:\s]+)?")


@dataclass(frozen=True)
class Roles:
    """The roles: the hosts by name and the addresses that they know each other by.

    :param node: whose conntrack is followed; it may be the client itself (hostNetwork).
    :param servers: the endpoints behind the service, as (host, address). Which of them is asked is for the node's rules
        to choose.
    :param service: the port of the Service that they are behind, as ``namespace/name:port``.
    """

    client: str
    node: str
    client_address: SocketAddress
    servers: tuple[tuple[str, SocketAddress], ...]
    service_address: SocketAddress | None
    service: str = ""


def roles_in(
    topology: Topology,
    family: Family,
    service: str | None = None,
    *,
    client: str | None = None,
    protocol: str = "tcp",
) -> Roles:
    """Choose the roles in a topology: its first client, the endpoints of its first Service, and the node between them.

    :param service: the Service instead of the first of the protocol, as :func:`service_port` knows it.
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
    port = service_port(topology, family, protocol, service)
    servers = _servers(topology, port)
    own = _own_address(topology, client, servers, family)
    if own is None:
        raise InputError(
            f"{topology.name}: {client} has no {family} address", cure="add one, or take the other --family"
        )
    address, asked = SocketAddress(own, CLIENT_PORT), SocketAddress(port.cluster_ip, port.port)
    node = judge(topology, client, address, servers[0], asked)
    return Roles(client, node, address, servers, asked, service=port.name)


def roles_without_service(topology: Topology, family: Family) -> Roles | None:
    """Choose the roles where there is no Service to ask: the first client, and the first host behind a node for it.

    None where there are no such two.
    """
    others = [host.name for host in topology.hosts if host.proxy_mode is None]
    for client, server in ((one.name, other) for one in topology.clients for other in others if other != one.name):
        own, its = topology.addresses(client, family), topology.addresses(server, family)
        if own and its:
            address, peer = SocketAddress(str(own[0]), CLIENT_PORT), SocketAddress(str(its[0]), CLIENT_PORT)
            with suppress(InputError):
                node = judge(topology, client, address, (server, peer))
                return Roles(client, node, address, ((server, peer),), None)
    return None


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


def by_node_port(topology: Topology, family: Family, service: str | None = None, *, client: str) -> Roles:
    """Choose as :func:`roles_in` does, for a client that asks the node by the Service's node port.

    :raises InputError: someone is missing, or no TCP Service that may be chosen has a node port.
    """
    if service is None:
        with_one = (port for port in usable_ports(topology, family, "tcp") if port.node_port)
        service = next((port.name for port in with_one), None)
    roles = roles_in(topology, family, service, client=client)
    port = service_port(topology, family, "tcp", roles.service)
    address = node_address(topology, roles.node, family)
    if not port.node_port or address is None:
        raise InputError(f"{topology.name}: {port.name} has no node port", cure="give it a nodePort, type: NodePort")
    return replace(roles, service_address=SocketAddress(str(address), port.node_port))


# --- Services -----------------------------------------------------------------------------------------


def usable_ports(topology: Topology, family: Family, protocol: str | None = None) -> list[ServicePort]:
    """Return the Services' ports of a protocol, or of any, that have an endpoint which a host of the topology has."""
    ports = _ports(topology, family)
    return [port for port in ports if protocol in (None, port.protocol) and _servers(topology, port)]


def _ports(topology: Topology, family: Family) -> list[ServicePort]:
    return service_ports(topology.services, topology.endpoint_slices, ProxyOptions(family, MINORS[-1]))


def service_port(topology: Topology, family: Family, protocol: str, service: str | None = None) -> ServicePort:
    """Return the Service's port that is asked: the first of the protocol, or the first of the Service named.

    :param service: ``name`` or ``namespace/name``, with ``:port`` behind it, by name or number, for one of several.
    :raises InputError: there is none; says what there is instead.
    """
    named = usable_ports(topology, family) if service is None else named_ports(topology, family, service)
    if port := next((one for one in named if one.protocol == protocol), None):
        return port
    there = ", ".join(f"{one.name} ({one.protocol.upper()})" for one in named)
    if service is not None:
        raise ServiceError(f"{topology.name}: {service} has no {protocol.upper()} port, but {there}")
    raise InputError(
        f"{topology.name}: no {protocol.upper()} service with an {family} endpoint that a host has"
        + (f", but {there}" if there else ""),
        cure="add a Service and an EndpointSlice of this family, or take the other --family",
    )


def named_ports(topology: Topology, family: Family, service: str) -> list[ServicePort]:
    """Return the ports that a name means, of those that can be asked.

    :param service: as :func:`service_port` knows it.
    :raises ServiceError: it is no name, there are none, or they are of several Services.
    """
    if not _SERVICE.fullmatch(service):
        raise ServiceError(f"{service!r} names no Service", cure="write [NAMESPACE/]NAME[:PORT], such as shop/web:http")
    key, _, wanted = service.partition(":")
    found = [
        port
        for port in usable_ports(topology, family)
        if _is_called(port.service, key) and wanted in ("", port.port_name, str(port.port))
    ]
    keys = list(dict.fromkeys(port.service for port in found))
    keys = keys or [one.key for one in topology.services if _is_called(one.key, key)]
    if len(keys) > 1:
        raise ServiceError(f"{topology.name}: several Services are named {key}", cure=f"one of: {', '.join(keys)}")
    if not found:
        raise _no_port(topology, family, service, keys)
    return found


def _no_port(topology: Topology, family: Family, service: str, keys: list[str]) -> ServiceError:
    """Return what there is to say where no port that can be asked has a name: how far the name leads.

    :param keys: the Service that is named; empty where there is none.
    """
    _key, _, wanted = service.partition(":")
    can_be_asked = usable_ports(topology, family)
    if not keys:
        cure = nearest(service, {port.name if wanted else port.service for port in can_be_asked})
        return ServiceError(f"{topology.name}: there is no Service {service}", cure=cure)
    [key] = keys
    ports = [port for port in _ports(topology, family) if port.service == key]
    others = f"can be asked: {', '.join(port.name for port in can_be_asked) or 'none'}"
    if not ports:
        return ServiceError(f"{topology.name}: {key} has no {family} cluster IP", cure=others)
    its = [port for port in ports if wanted in ("", port.port_name, str(port.port))]
    if not its:
        there = ", ".join(port.port_name or str(port.port) for port in ports)
        return ServiceError(f"{topology.name}: {key} has no port {wanted}", cure=f"its ports: {there}")
    names = ", ".join(port.name for port in its)
    return ServiceError(f"{topology.name}: {names} has no ready {family} endpoint", cure=others)


def _is_called(service: str, key: str) -> bool:
    return key in (service, service.partition("/")[2])


def _servers(topology: Topology, port: ServicePort) -> tuple[tuple[str, SocketAddress], ...]:
    """Return the endpoints that hosts of the topology have."""
    return tuple(
        (host.name, SocketAddress(target.address, target.port))
        for target in port.endpoints.reachable
        if (host := topology.host_of(target.address)) is not None
    )


def _own_address(
    topology: Topology, client: str, servers: tuple[tuple[str, SocketAddress], ...], family: Family
) -> str | None:
    """Return the address on the link to the first server where there is one, else the client's first."""
    for end in topology.ends(client):
        if any(other.host == servers[0][0] for other in topology.neighbours(end)):
            return next((str(own.ip) for own in end.addresses if Family.of(own) is family), None)
    return next((str(own) for own in topology.addresses(client, family)), None)
