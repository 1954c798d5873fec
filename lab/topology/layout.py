# SPDX-License-Identifier: MIT
"""Hosts and links around a cluster's nodes: pods behind their nodes, a router between the nodes, somebody outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.topology.model import End, Host, Link
from lab.topology.route_keys import Route
from lab.topology.space import USUAL, Joint, Space
from lab.topology.values import IPAddress, IPNetwork
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.topology.nodes import Member

ROUTER: Final = "router"
OUTSIDE: Final = "outside"

#: Ranges for documentation and for tests (RFC 5737, RFC 3849, RFC 2544), which no cluster should have.
_OUTSIDE: Final = {
    Family.IPV4: ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "198.18.255.0/24"),
    Family.IPV6: ("2001:db8:ff::/64", "2001:db8:fe::/64", "2001:db8:fd::/64"),
}
_NODES: Final = {
    Family.IPV4: ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", *(f"198.18.{n}.0/24" for n in range(64))),
    Family.IPV6: tuple(f"2001:db8:{n}::/64" for n in range(1, 64)),
}


@dataclass
class Layout:
    """Lays out the topology of a cluster.

    :ivar routes: of each host.
    :ivar links: all of them.
    """

    families: Sequence[Family]
    space: Space
    members: Sequence[Member]
    routes: dict[str, list[Route]] = field(default_factory=lambda: defaultdict(list))
    links: list[Link] = field(default_factory=list)
    sysctls: list[tuple[str, str]] = field(default_factory=list)
    own: dict[str, dict[Family, IPAddress]] = field(default_factory=lambda: defaultdict(dict))
    lans: list[tuple[IPNetwork, frozenset[str]]] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    _pods: list[tuple[str, IPAddress]] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    # --- nodes and the router -------------------------------------------------------------------------------

    def join_nodes(self) -> None:
        """Link the nodes to the router: those of one subnet on one segment, as neighbours.

        :raises InputError: nodes are neighbours in one family only.
        """
        groups: dict[tuple[IPNetwork | None, ...], list[Member]] = {}
        for member in self.members:
            key = tuple(_lan(member.addresses.get(family), family) for family in self.families)
            groups.setdefault(key, []).append(member)
        for key in groups:
            for network in key:
                if network is not None and not self.space.take(network):
                    message = f"the nodes in {network} are neighbours by one family, and not by the other"
                    raise InputError(message, cure="give Nodes with addresses of one family")
        for key, members in groups.items():
            named = dict(zip(self.families, key, strict=True))
            nets = {family: net or self.space.pick(_NODES[family]) for family, net in named.items()}
            self._join(members, nets)

    def _join(self, members: Sequence[Member], nets: Mapping[Family, IPNetwork]) -> None:
        gateways = tuple(self.space.free(net) for net in nets.values())
        self.lans += [(net, frozenset(one.name for one in members)) for net in nets.values()]
        router = End(ROUTER, self._interface(ROUTER, "node"), gateways)
        if len(members) > 1:  # the router is asked of neighbours, and need not tell of that
            self.sysctls += [(f"net/ipv4/conf/{name}/send_redirects", "0") for name in ("all", router.interface)]
        ends = []
        for member in members:
            addresses = []
            for family, net in nets.items():
                address = member.addresses.get(family)
                own = ip_interface(f"{address}/{net.prefixlen}") if address else self.space.free(net)
                self.own[member.name][family] = own.ip
                addresses.append(own)
                if address is None:
                    self.given.append(f"{member.name} {own.ip}")
            ends.append(End(member.name, "eth0", tuple(addresses)))
            self.routes[member.name] += [Route("default", gateway.ip) for gateway in gateways]
        self.links.append(Link((*ends, router)))

    def join_outside(self) -> None:
        """Link somebody outside to the router."""
        nets = [self.space.pick(_OUTSIDE[family]) for family in self.families]
        near = tuple(self.space.free(net) for net in nets)
        far = tuple(self.space.free(net) for net in nets)
        self.links.append(Link((End(OUTSIDE, "eth0", far), End(ROUTER, "outside", near))))
        self.routes[OUTSIDE] += [Route("default", gateway.ip) for gateway in near]

    # --- pods -----------------------------------------------------------------------------------------------

    def add_host(self, name: str, place: str, addresses: Iterable[IPAddress]) -> None:
        """Link a host with these addresses to a node, or to the router."""
        joints = [(address, self.space.joint(address)) for address in addresses]
        pod = tuple(own for _address, joint in joints for own in joint.pod)
        interface = self._interface(place, "pod" if place != ROUTER else "far")
        gateways = tuple(joint.gateway for _, joint in joints)
        self.links.append(Link((End(name, "eth0", pod), End(place, interface, gateways))))
        seen: set[Family] = set()
        for address, joint in joints:
            self._lead(name, place, address, joint, is_first=Family.of(address) not in seen)
            seen.add(Family.of(address))

    def _lead(self, name: str, place: str, address: IPAddress, joint: Joint, *, is_first: bool) -> None:
        if is_first:
            self.routes[name].append(Route("default", joint.gateway.ip))
        if joint.via is not None:
            self.routes[place].append(Route(ip_network(address), joint.via))
        if place != ROUTER:
            self._pods.append((place, address))

    def lead_to_pods(self) -> None:
        """Have the router lead to the nodes' pods, and nodes of one subnet to pods that have addresses of it."""
        linked = {net for net, _names in self.lans}
        ranges = [(one.name, cidr) for one in self.members for cidr in one.cidrs.values() if cidr not in linked]
        for node, cidr in ranges:
            self.routes[ROUTER].append(Route(cidr, self.own[node][Family.of(cidr)]))
        for node, address in self._pods:
            if _longest(address, [*ranges, *((None, net) for net in linked)]) != node:
                self.routes[ROUTER].append(Route(ip_network(address), self.own[node][Family.of(address)]))
            for net, names in self.lans:
                if address.version == net.version and address in net:
                    for other in names - {node}:
                        gateway = self._gateway(other, Family.of(address))
                        self.routes[other].append(Route(ip_network(address), gateway))

    def lead_to(self, addresses: Iterable[IPAddress], node: str) -> None:
        """Have the router lead addresses of load balancers and the like to a node."""
        for address in addresses:
            self.routes[ROUTER].append(Route(ip_network(address), self.own[node][Family.of(address)]))

    def _gateway(self, node: str, family: Family) -> IPAddress:
        return next(one.via for one in self.routes[node] if one.to == "default" and Family.of(one.via) is family)

    def _interface(self, host: str, word: str) -> str:
        self._numbers[host] += 1
        return f"{word}{self._numbers[host]}"

    # --- hosts ----------------------------------------------------------------------------------------------

    def hosts(self, pods: Sequence[str], clusters: Sequence[IPNetwork]) -> Iterator[Host]:
        """Yield the hosts: pods, nodes, the router, somebody outside."""
        for name in pods:
            yield Host(name=name, routes=tuple(self.routes[name]))
        for member in self.members:
            yield Host(
                name=member.name,
                routes=tuple(self.routes[member.name]),
                forwarding=True,
                proxy_mode=ProxyMode.IPTABLES,
                proxy_version=member.version,
                cluster_cidrs=tuple(clusters),
                node_zone=member.zone,
            )
        yield Host(
            name=ROUTER,
            routes=tuple(self.routes[ROUTER]),
            forwarding=True,
            sysctls=tuple(dict(self.sysctls).items()),
        )
        yield Host(name=OUTSIDE, routes=tuple(self.routes[OUTSIDE]))


def _lan(address: IPAddress | None, family: Family) -> IPNetwork | None:
    """Return the subnet that a node is taken to be in: Nodes do not say how long its prefix is."""
    return None if address is None else ip_network(f"{address}/{USUAL[family]}", strict=False)


def _longest(address: IPAddress, ranges: Iterable[tuple[str | None, IPNetwork]]) -> str | None:
    """Return whose range leads to an address."""
    having = [(cidr.prefixlen, name) for name, cidr in ranges if cidr.version == address.version and address in cidr]
    return max(having, key=lambda one: one[0])[1] if having else None


def cover(family: Family, addresses: Iterable[IPAddress | IPNetwork]) -> IPNetwork | None:
    """Return the smallest range that holds all of a family; None where there is none."""
    nets = [ip_network(one) for one in addresses if Family.of(one) is family]
    if not nets:
        return None
    whole = nets[0]
    while not all(_inside(net, whole) for net in nets):
        whole = whole.supernet()
    return whole


def _inside(net: IPNetwork, whole: IPNetwork) -> bool:
    return whole.prefixlen <= net.prefixlen and net.network_address in whole
