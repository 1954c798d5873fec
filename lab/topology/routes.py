# SPDX-License-Identifier: MIT
"""What the routes of a topology tell: whom a host sends to, who forwards it, and which address a node is known by."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from lab.topology.model import End, IPAddress, Topology
from lab.topology.ways import way, way_out
from lab.vocabulary import Family


class Hop(NamedTuple):
    """The link by which a packet leaves a host.

    :param end: the host's own end of it.
    :param source: the address that the host itself would send from.
    """

    end: End
    source: IPAddress


def next_hop(topology: Topology, host: str, address: IPAddress | str) -> Hop | None:
    """Return where a host sends what is for an address; None where it has no route."""
    end = way_out(topology, host, str(address))
    if end is None:
        return None
    wanted = ip_address(address)
    near = {own.ip for own in topology.peer(end).addresses if own.version == wanted.version}
    own = next(own for own in end.addresses if any(one in own.network for one in near))
    return Hop(end, own.ip)


def leads_to(topology: Topology, host: str, address: IPAddress | str) -> str | None:
    """Return the host that gets what another sends to an address; None where that has no route."""
    hop = next_hop(topology, host, address)
    return None if hop is None else topology.peer(hop.end).host


def forwarded_by(topology: Topology, host: str, address: IPAddress | str) -> tuple[str, ...] | None:
    """Return the hosts that forward what a host sends to another's address, in order; None where it does not arrive."""
    owner, passed = topology.host_of(address), way(topology, host, str(address))
    return passed[1:-1] if owner is not None and passed[-1] == owner.name else None


def node_address(topology: Topology, node: str, family: Family) -> IPAddress | None:
    """Return the address that a node is known by, kubelet's InternalIP; None where it has none of the family.

    What the topology says by ``node-ips``, as kubelet's ``--node-ip`` does; else what its default route is sent from,
    for which kubelet looks as well (``ChooseHostInterface``, k8s.io/apimachinery/pkg/util/net/interface.go). Without
    a default route kubelet would not start: then it is the first address towards another node, or else a router, or
    else a host that is no pod of its own.
    """
    host = topology.host(node)
    if own := next((address for address in host.node_ips if Family.of(address) is family), None):
        return own
    for route in host.routes:
        if route.to == "default" and Family.of(route.via) is family:
            hop = next_hop(topology, node, route.via)
            return None if hop is None else hop.source
    ends = sorted(topology.ends(node), key=lambda end: _strangeness(topology, end))
    return next((own.ip for end in ends for own in end.addresses if Family.of(own) is family), None)


def is_pod(topology: Topology, end: End) -> bool:
    """Check whether a node's link leads to a pod of its own: one in the cluster's range, or with no other way out."""
    peer = topology.peer(end)
    host, node = topology.host(peer.host), topology.host(end.host)
    if host.proxy_mode is not None or host.forwarding:
        return False
    if any(route.via in (own.ip for own in peer.addresses) for route in node.routes if route.to == "default"):
        return False  # where a node sends what it does not know is no pod
    inside = any(own.ip in cidr for own in peer.addresses for cidr in node.cluster_cidrs)
    ways = {route.via for route in host.routes if route.to == "default"}
    return inside or any(own.ip in ways for own in end.addresses)


def _strangeness(topology: Topology, end: End) -> int:
    """Rank a node's links: what leads to another node is likest to be the nodes' network, what leads to a pod least."""
    if is_pod(topology, end):
        return 3
    other = topology.host(topology.peer(end).host)
    return 0 if other.proxy_mode is not None else 1 if other.forwarding else 2
