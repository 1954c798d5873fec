# SPDX-License-Identifier: MIT
"""What the routes of a topology tell: whom a host sends to, who forwards it, and which address a node is known by."""

from __future__ import annotations

from typing import NamedTuple

from lab.topology.model import End, Topology
from lab.topology.values import IPAddress
from lab.topology.ways import step, way
from lab.vocabulary import Family


class Hop(NamedTuple):
    """The link by which a packet leaves a host.

    :param end: the host's own end of it.
    :param source: the address that the host itself would send from.
    :param to: the end that gets it: the gateway's, or the destination's; None where nobody there has the address.
    """

    end: End
    source: IPAddress
    to: End | None


def next_hop(topology: Topology, host: str, address: IPAddress | str) -> Hop | None:
    """Return where a host sends what is for an address; None where it has no route."""
    taken = step(topology, host, str(address))
    if taken is None:
        return None
    # The kernel's choice: fib_info_update_nhc_saddr (net/ipv4/fib_semantics.c), inet_select_addr (net/ipv4/devinet.c).
    same = [own for own in taken.end.addresses if own.version == taken.gateway.version]
    own = next((own for own in same if taken.gateway in own.network), same[0])
    return Hop(taken.end, own.ip, taken.to)


def leads_to(topology: Topology, host: str, address: IPAddress | str) -> str | None:
    """Return the host that gets what another sends to an address; None where that has no route."""
    hop = next_hop(topology, host, address)
    return None if hop is None or hop.to is None else hop.to.host


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
    for route in host.main_routes:
        if route.to == "default" and Family.of(route.via) is family:
            hop = next_hop(topology, node, route.via)
            return None if hop is None else hop.source
    ends = sorted(topology.ends(node), key=lambda end: _strangeness(topology, end))
    return next((own.ip for end in ends for own in end.addresses if Family.of(own) is family), None)


def is_pod(topology: Topology, end: End) -> bool:
    """Check whether a node's link leads to nothing but pods of its own (see :func:`is_pod_of`)."""
    return all(is_pod_of(topology, end, other) for other in topology.neighbours(end))


def is_pod_of(topology: Topology, end: End, other: End) -> bool:
    """Check whether a node's neighbour is a pod of its own: one in the cluster's range, or with no other way out.

    On a segment that others share, who has no other way out may be anybody.

    :param end: the node's.
    """
    host, node = topology.host(other.host), topology.host(end.host)
    if host.proxy_mode is not None or host.forwarding:
        return False
    if any(route.via in (own.ip for own in other.addresses) for route in node.main_routes if route.to == "default"):
        return False  # where a node sends what it does not know is no pod
    inside = any(own.ip in cidr for own in other.addresses for cidr in node.cluster_cidrs)
    ways = {route.via for route in host.main_routes if route.to == "default"}
    alone = topology.segments.link(end).ends in ((end, other), (other, end))
    return inside or (alone and any(own.ip in ways for own in end.addresses))


def node_of(topology: Topology, host: str) -> str | None:
    """Return the node that a host is a pod of; None for whoever is none's."""
    for end in topology.ends(host):
        for other in topology.neighbours(end):
            if topology.host(other.host).proxy_mode is not None and is_pod_of(topology, other, end):
                return other.host
    return None


def _strangeness(topology: Topology, end: End) -> int:
    """Rank a node's links: what leads to another node is likest to be the nodes' network, what leads to a pod least."""
    if is_pod(topology, end):
        return 3
    others = [topology.host(other.host) for other in topology.neighbours(end)]
    return 0 if any(one.proxy_mode for one in others) else 1 if any(one.forwarding for one in others) else 2
