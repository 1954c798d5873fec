# SPDX-License-Identifier: MIT
"""Where everybody is in the topology of a real node: links, addresses, routes and names of interfaces."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.topology.model import End, IPAddress, IPInterface, IPNetwork, Link, Route
from lab.topology.names import INTERFACE
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.node.bundle import Bundle

CLIENT: Final = "client"
NODE: Final = "node"
NETWORK: Final = "network"  # what is beyond the node: a router, and behind it other nodes' pods

_MOST_HOSTS: Final = 16  # of endpoints; where a Service has more, they are shared out among as many
_INTERFACES: Final = re.compile(r"(?:(?<= )-[io]|iifname|oifname) \"?([\w.@*+-]+)")
#: What the end of a pod's veth pair on its node is called, or the bridge that it is in, by the CNIs that do so: Calico,
#: Cilium, Azure, AWS, GKE, the reference plugins' bridge, kubenet, kube-router, Weave Net.
_OF_PODS: Final = re.compile(r"(cali|lxc|azv|eni|gke|veth)\w|cni\d|cbr\d|kube-bridge$|weave$")
#: systemd.net-naming-scheme(7), and what kernels, bonds and Open vSwitch call the ports of machines.
_OF_UPLINK: Final = re.compile(r"(eth|eno|ens|enp|enx|bond|wlan|wlp|br-ex)")
_CLUSTER_CIDR: Final = re.compile(r"! -s (\S+/\d+) |ip6? saddr != (\S+/\d+)|-A KUBE-FORWARD -s (\S+/\d+) ")
#: Of links of which nothing is known: RFC 3927, and a unique local range (RFC 4193).
_TRANSIT: Final = {Family.IPV4: ip_network("169.254.64.0/18"), Family.IPV6: ip_network("fd69:254::/64")}
#: Of a node of which no address is known: RFC 5737, and a unique local one.
_UNKNOWN: Final = {Family.IPV4: ip_interface("192.0.2.10/24"), Family.IPV6: ip_interface("fd69:2::10/64")}


class Places:
    """Lays out a node's topology.

    :param addresses: the endpoints' addresses by family, as they stand in the rules.
    :ivar links: all of them.
    :ivar routes: of each host.
    :ivar endpoints: names of the hosts that have endpoints.
    :ivar cluster_cidrs: the pods' networks by family, where the rules name them.
    :ivar notes: in sentences, what stands for what.
    :raises InputError: every endpoint is the node itself.
    """

    def __init__(self, bundle: Bundle, addresses: Mapping[Family, Sequence[str]]) -> None:
        self._bundle = bundle
        self._texts = tuple(one.text for one in bundle.rules)
        self._named = tuple(dict.fromkeys(name for text in self._texts for name in _INTERFACES.findall(text)))
        self._own = {own.ip for interface in bundle.interfaces for own in interface.addresses}
        self.families = tuple(addresses)
        self._addresses = {family: self._foreign(addresses[family]) for family in addresses}
        self.cluster_cidrs = {family: cidr for family in addresses if (cidr := self._cidr(family))}
        self.links: list[Link] = []
        self.routes: dict[str, list[Route]] = defaultdict(list)
        self.notes: list[str] = []
        self.endpoints: list[str] = []
        self._subnets = {family: _TRANSIT[family].subnets(new_prefix=_pair(family)) for family in Family}
        self._gateways: dict[str, dict[Family, IPAddress]] = {}
        self.uplink = self._uplink()
        self._add_uplink(self.uplink)
        self._add_client()
        self._add_endpoints()

    def _foreign(self, addresses: Iterable[str]) -> list[IPAddress]:
        found = [one for one in dict.fromkeys(map(ip_address, addresses)) if one not in self._own]
        if not found:
            raise InputError(
                "every endpoint of this Service is the node itself", cure="take another Service by --service"
            )
        return found

    # --- what is known ------------------------------------------------------------------------------------

    def _cidr(self, family: Family) -> IPNetwork | None:
        """Return the pods' network, by the rules that tell pods from others."""
        for text in self._texts:
            for found in _CLUSTER_CIDR.finditer(text):
                try:
                    cidr = ip_network(next(filter(None, found.groups())))
                except ValueError:
                    continue
                if Family.of(cidr) is family and not cidr.is_loopback:
                    return cidr
        return None

    def _uplink(self) -> str:
        """Return the interface of the default route, else the first that is called like one, else eth0."""
        for route in self._bundle.routes:
            if route.to.prefixlen == 0 and _is_name(route.interface):
                return route.interface
        names = (*(one.name for one in self._bundle.interfaces), *self._named)
        return next((name for name in names if _OF_UPLINK.match(name) and _is_name(name)), "eth0")

    def _interface_to(self, address: IPAddress) -> str:
        """Return the interface by which the node's routes lead to an address; the uplink where none is known."""
        fitting = [one for one in self._bundle.routes if one.to.version == address.version and address in one.to]
        best = max(fitting, key=lambda one: one.to.prefixlen, default=None)
        return best.interface if best is not None and _is_name(best.interface) else self.uplink

    def _addresses_of(self, name: str) -> tuple[IPInterface, ...]:
        return next((one.addresses for one in self._bundle.interfaces if one.name == name), ())

    # --- the links ------------------------------------------------------------------------------------------

    def _add_uplink(self, name: str) -> None:
        """Link the node to what is beyond it, by an interface with the addresses that the node has there."""
        near: list[IPInterface] = []
        far: list[IPInterface] = []
        for family in self.families:
            usable = [own for own in self._addresses_of(name) if _usable(own, family)]
            own = usable[0] if usable else None
            if own is None and name == self.uplink:
                own = self._node_address(family)
            if own is None:
                own, other = self._transit(family)
            else:
                other = self._gateway(own)
            near.append(own)
            far.append(other)
            if name == self.uplink:
                self.routes[NODE].append(Route("default", other.ip))
        self._gateways[name] = {Family.of(other): other.ip for other in far}
        self.links.append(Link((End(NODE, name, tuple(near)), End(NETWORK, f"to-{name}"[:15], tuple(far)))))
        if name == self.uplink:
            self._back = {Family.of(own): own.ip for own in near}

    def _node_address(self, family: Family) -> IPInterface:
        """Return the address that the node is given where no interface is known, by nftables' set of them if it is."""
        for text in self._texts:
            for found in re.finditer(r"set nodeport-ips \{[^}]*?elements = \{ ([0-9a-f.:]+)", text):
                if Family.of(address := ip_address(found[1])) is family:
                    return ip_interface(f"{address}/{24 if family is Family.IPV4 else 64}")
        return _UNKNOWN[family]

    def _gateway(self, own: IPInterface) -> IPInterface:
        """Return the other end's address in a subnet of the node's: the default route's gateway if it is there."""
        length = own.network.prefixlen
        for route in self._bundle.routes:
            if route.to.prefixlen == 0 and route.via is not None and route.via in own.network:
                return ip_interface(f"{route.via}/{length}")
        return ip_interface(f"{self._free(own.network, {own.ip})}/{length}")

    def _transit(self, family: Family) -> tuple[IPInterface, IPInterface]:
        subnet = next(self._subnets[family])
        return ip_interface(f"{subnet[1]}/{subnet.prefixlen}"), ip_interface(f"{subnet[2]}/{subnet.prefixlen}")

    def _free(self, network: IPNetwork, taken: Iterable[IPAddress]) -> IPAddress:
        """Return an address of a network that nobody is known to have, the last that no rule names."""
        taken = {*taken, *self._own, *(one for some in self._addresses.values() for one in some)}
        top = int(network.broadcast_address) - 1
        for number in range(top, max(int(network.network_address), top - 1000), -1):
            make = IPv4Address if network.version == 4 else IPv6Address
            if (address := make(number)) not in taken and not self._is_said(str(address)):
                return address
        raise InputError(f"no address of {network} is free for the lab's own", cure="give the node's addresses as well")

    def _is_said(self, address: str) -> bool:
        return any(re.search(rf"(?<![\w.:]){re.escape(address)}(?![\w.:])", text) for text in self._texts)

    def _add_client(self) -> None:
        """Add the client: a pod of this node, on the interface that its pods have."""
        name = self._pod_interface()
        near: list[IPInterface] = []
        far: list[IPInterface] = []
        for family in self.families:
            bridge = next((own for own in self._addresses_of(name) if _usable(own, family)), None)
            if bridge is not None and bridge.network.prefixlen < bridge.max_prefixlen - 1:
                own = ip_interface(f"{self._free(bridge.network, {bridge.ip})}/{bridge.network.prefixlen}")
                near.append(bridge)
                far.append(own)
                gateway = bridge.ip
            else:
                here, there = self._transit(family)
                own = ip_interface(str(self._pod_address(name, family)))
                near.append(here)
                far += [own, there]
                gateway = here.ip
                self.routes[NODE].append(Route(ip_network(own.ip), there.ip))
            self.routes[CLIENT].append(Route("default", gateway))
            self.routes[NETWORK].append(Route(ip_network(own.ip), self._back[family]))
        self.links.append(Link((End(CLIENT, "eth0", tuple(far)), End(NODE, name, tuple(near)))))
        self.pod_interface = name

    def _pod_interface(self) -> str:
        """Return the interface of a pod: one that routes or addresses tell, else one that the rules name."""
        known = [one for one in self._bundle.interfaces if one.addresses and _OF_PODS.match(one.name)]
        routed = [one.interface for one in self._bundle.routes if _OF_PODS.match(one.interface)]
        ends = {self._interface_to(one) for some in self._addresses.values() for one in some}
        candidates = [*(one.name for one in known), *(name for name in routed if name not in ends), *self._named]
        for name in candidates:
            if name != self.uplink and _OF_PODS.match(name) and _is_name(name):
                return name
        prefixes = [name.rstrip("+*") for name in self._named if name.endswith(("+", "*"))]
        return next((f"{one}0" for one in prefixes if one and _OF_PODS.match(f"{one}0")), "pod0")

    def _pod_address(self, interface: str, family: Family) -> IPAddress:
        """Return the client's address: that of a pod on this interface, else a free one beside the endpoints."""
        for route in self._bundle.routes:
            single = route.to.prefixlen == route.to.max_prefixlen
            if route.interface == interface and single and Family.of(route.to) is family:
                return route.to.network_address
        near = ip_network(f"{self._addresses[family][0]}/{24 if family is Family.IPV4 else 120}", strict=False)
        cidr = self.cluster_cidrs.get(family)
        return self._free(cidr if cidr is not None and not cidr.overlaps(near) else near, ())

    def _add_endpoints(self) -> None:
        rows = list(zip_longest(*(self._addresses[family] for family in self.families)))
        for number, row in enumerate(rows):
            addresses = [one for one in row if one is not None]
            if number < _MOST_HOSTS:
                self._add_endpoint(f"endpoint-{number + 1}", addresses)
            else:
                self._add_to(f"endpoint-{number % _MOST_HOSTS + 1}", addresses)

    def _add_endpoint(self, name: str, addresses: Sequence[IPAddress]) -> None:
        interface = self._interface_to(addresses[0])
        if interface == self.pod_interface:
            self.notes.append(f"{addresses[0]} is a pod of this node on {interface}; here it is behind {self.uplink}")
            interface = self.uplink
        is_pod = interface != self.uplink and bool(_OF_PODS.match(interface))
        if not is_pod and interface not in self._gateways:
            self._add_uplink(interface)
        host, here = (NODE, interface) if is_pod else (NETWORK, name)
        near: list[IPInterface] = []
        far: list[IPInterface] = []
        for family in self.families:
            gateway, own = self._transit(family)
            near.append(gateway)
            far.append(own)
            self.routes[name].append(Route("default", gateway.ip))
        self.endpoints.append(name)
        self._ends = getattr(self, "_ends", {}) | {name: (len(self.links), host, interface)}
        self.links.append(Link((End(host, here, tuple(near)), End(name, "eth0", tuple(far)))))
        self._add_to(name, addresses)

    def _add_to(self, name: str, addresses: Sequence[IPAddress]) -> None:
        """Give an endpoint's host addresses, and the routes there."""
        place, host, interface = self._ends[name]
        near, far = self.links[place].ends
        more = tuple(ip_interface(str(address)) for address in addresses)
        self.links[place] = Link((near, End(far.host, far.interface, (*more, *far.addresses))))
        for address in addresses:
            there = next(own.ip for own in far.addresses if own.version == address.version and own not in more)
            transit = [own.ip for own in far.addresses if own.ip in _TRANSIT[Family.of(address)]]
            self.routes[host].append(Route(ip_network(address), transit[0] if transit else there))
            if host != NODE:
                self.routes[NODE].append(Route(ip_network(address), self._gateways[interface][Family.of(address)]))


def _pair(family: Family) -> int:
    return 30 if family is Family.IPV4 else 126


def _is_name(name: str) -> bool:
    return re.fullmatch(INTERFACE, name) is not None and name not in {"lo", "all", "default"}


def _usable(own: IPInterface, family: Family) -> bool:
    return Family.of(own) is family and not (own.is_link_local or own.is_loopback) and own.network.prefixlen < (
        own.max_prefixlen - 1
    )


