# SPDX-License-Identifier: MIT
"""Where everybody is in the topology of a real node: links, addresses and routes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_interface, ip_network
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError
from lab.node.facts import is_of_pods
from lab.topology.model import End, Link
from lab.topology.route_keys import Route
from lab.topology.values import IPAddress, IPInterface
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.node.facts import Facts

CLIENT: Final = "client"
NODE: Final = "node"
NETWORK: Final = "network"  # what is beyond the node: a router, and behind it other nodes' pods

_MOST_HOSTS: Final = 16  # of endpoints; where a Service has more, they are shared out among as many
#: Of links of which nothing is known: RFC 3927, and a unique local range (RFC 4193).
_TRANSIT: Final = {Family.IPV4: ip_network("169.254.64.0/18"), Family.IPV6: ip_network("fd69:254::/64")}

Addresses = Mapping[Family, Sequence["IPAddress"]]


class Places:
    """Lays out a node's topology.

    :param endpoints: the endpoints' addresses by family.
    :ivar links: all of them.
    :ivar routes: of each host.
    :ivar endpoints: names of the hosts that have endpoints.
    :ivar notes: in sentences, what stands for what.
    :raises InputError: every endpoint is the node itself.
    """

    def __init__(self, facts: Facts, endpoints: Addresses) -> None:
        self._facts = facts
        self._families = tuple(endpoints)
        self.links: list[Link] = []
        self.routes: dict[str, list[Route]] = defaultdict(list)
        self.notes: list[str] = []
        self._subnets: dict[Family, Iterator[Any]] = {
            family: _TRANSIT[family].subnets(new_prefix=_TRANSIT[family].max_prefixlen - 2) for family in Family
        }
        self._gateways: dict[str, dict[Family, IPAddress]] = {}
        own = {family: self._of_node(family) for family in self._families}
        self._link_to_network(facts.uplink, own)
        for gateway in self._gateways[facts.uplink].values():
            self.routes[NODE].append(Route("default", gateway))
        pods = {family: self._others(endpoints[family]) for family in self._families}
        self._pod_interface = facts.pod_interface(one for some in pods.values() for one in some)
        self._add_client({family: some[0] for family, some in pods.items()}, own)
        self.endpoints = self._add_endpoints(pods)

    def _others(self, endpoints: Sequence[IPAddress]) -> list[IPAddress]:
        others = [one for one in endpoints if one not in self._facts.own]
        if not others:
            raise InputError("every endpoint of this Service is the node itself", cure="take another by --service")
        return others

    # --- the node --------------------------------------------------------------------------------------------

    def _of_node(self, family: Family) -> tuple[IPInterface, IPInterface]:
        own = self._facts.node_address(family)
        return own, self._facts.gateway(own)

    def _link_to_network(self, interface: str, ends: Mapping[Family, tuple[IPInterface, IPInterface]]) -> None:
        """Link the node to what is beyond it."""
        near, far = ([end[side] for end in ends.values()] for side in (0, 1))
        self.links.append(Link((End(NODE, interface, tuple(near)), End(NETWORK, f"to-{interface}"[:15], tuple(far)))))
        self._gateways[interface] = {Family.of(other): other.ip for other in far}

    def _transit(self, family: Family) -> tuple[IPInterface, IPInterface]:
        """Return both ends of a link of which nothing is known."""
        subnet = next(self._subnets[family])
        return ip_interface(f"{subnet[1]}/{subnet.prefixlen}"), ip_interface(f"{subnet[2]}/{subnet.prefixlen}")

    # --- the client ------------------------------------------------------------------------------------------

    def _add_client(
        self, beside: Mapping[Family, IPAddress], node: Mapping[Family, tuple[IPInterface, IPInterface]]
    ) -> None:
        """Add a pod of this node, on the interface that its pods have."""
        facts, interface = self._facts, self._pod_interface
        near: list[IPInterface] = []
        far: list[IPInterface] = []
        for family in self._families:
            if bridge := next(iter(facts.addresses_of(interface, family)), None):
                own = ip_interface(f"{facts.free(bridge.network)}/{bridge.network.prefixlen}")
                near.append(bridge)
                far.append(own)
            else:
                here, there = self._transit(family)
                own = ip_interface(str(facts.pod_address(interface, family, beside[family])))
                near.append(here)
                far += [own, there]
                self.routes[NODE].append(Route(ip_network(own.ip), there.ip))
            self.routes[CLIENT].append(Route("default", near[-1].ip))
            self.routes[NETWORK].append(Route(ip_network(own.ip), node[family][0].ip))
        self.links.append(Link((End(CLIENT, "eth0", tuple(far)), End(NODE, interface, tuple(near)))))

    # --- the endpoints ---------------------------------------------------------------------------------------

    def _add_endpoints(self, endpoints: Addresses) -> list[str]:
        """Add a host for each endpoint, of a dual-stack Service with an address of each family."""
        rows = list(zip_longest(*endpoints.values()))
        shares = [[one for row in rows[start::_MOST_HOSTS] for one in row if one] for start in range(_MOST_HOSTS)]
        names = [f"endpoint-{number}" for number, share in enumerate(shares, 1) if share]
        for name, addresses in zip(names, shares, strict=False):
            self._add_endpoint(name, addresses)
        return names

    def _add_endpoint(self, name: str, addresses: Sequence[IPAddress]) -> None:
        interface = self._interface_to(addresses[0])
        beside_node = interface != self._facts.uplink and is_of_pods(interface)
        if not beside_node and interface not in self._gateways:
            self._link_to_network(interface, {family: self._at(interface, family) for family in self._families})
        host, own_interface = (NODE, interface) if beside_node else (NETWORK, name)
        near, far = zip(*map(self._transit, self._families), strict=True)
        routed = tuple(ip_interface(str(one)) for one in addresses)
        # The pod's own address is its interface's first: where the pod redirects to itself, that one is taken, of IPv4
        # the one added first, of IPv6 the one added last (nf_nat_redirect.c; ipv6_link_dev_addr, net/ipv6/addrconf.c).
        own = sorted((*routed, *far), key=lambda one: (one in far) if one.version == 4 else (one in routed))
        self.links.append(Link((End(host, own_interface, near), End(name, "eth0", tuple(own)))))
        self.routes[name] += [Route("default", gateway.ip) for gateway in near]
        ways = {Family.of(one): one.ip for one in far}
        for one in addresses:
            self.routes[host].append(Route(ip_network(one), ways[Family.of(one)]))
            if host == NETWORK:
                self.routes[NODE].append(Route(ip_network(one), self._gateways[interface][Family.of(one)]))

    def _interface_to(self, address: IPAddress) -> str:
        interface = self._facts.interface_to(address)
        if interface == self._pod_interface:
            uplink = self._facts.uplink
            # The client, on whose link it would be, comes to it by the node as well.
            ways = [one.via for one in self.routes[CLIENT] if one.via.version == address.version]
            self.routes[CLIENT] += [Route(ip_network(address), via) for via in ways[:1]]
            self.notes.append(f"{address} is a pod of this node, on {interface} as the client is; here behind {uplink}")
            return uplink
        return interface

    def _at(self, interface: str, family: Family) -> tuple[IPInterface, IPInterface]:
        """Return both ends of another link to the network, such as a tunnel's."""
        own = next(iter(self._facts.addresses_of(interface, family)), None)
        return (own, self._facts.gateway(own)) if own else self._transit(family)
