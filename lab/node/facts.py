# SPDX-License-Identifier: MIT
"""What is known of where a node's packets come and go: by what was collected of it, else by what its rules name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.topology.names import INTERFACE
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.node.bundle import Bundle
    from lab.topology.values import IPAddress, IPInterface, IPNetwork

_INTERFACES: Final = re.compile(r"(?:(?<= )-[io]|iifname|oifname) \"?([\w.@*+-]+)")
#: What the end of a pod's veth pair on its node is called, or the bridge that it is in, by the CNIs that do so: Calico,
#: Cilium, Azure, AWS, GKE, the reference plugins' bridge, kubenet, kube-router, Weave Net.
_OF_PODS: Final = re.compile(r"(cali|lxc|azv|eni|gke|veth)\w|cni\d|cbr\d|kube-bridge$|weave$")
#: systemd.net-naming-scheme(7), and what kernels, bonds and Open vSwitch call the ports of machines.
_OF_UPLINK: Final = re.compile(r"(eth|eno|ens|enp|enx|bond|wlan|wlp|br-ex)")
_CLUSTER_CIDR: Final = re.compile(r"! -s (\S+/\d+) |ip6? saddr != (\S+/\d+)|-A KUBE-FORWARD -s (\S+/\d+) ")
_NODE_PORT_IPS: Final = re.compile(r"set nodeport-ips \{[^}]*?elements = \{ ([0-9a-f.:]+)")
#: Of a node of which no address is known: RFC 5737, and a unique local one (RFC 4193).
_UNKNOWN: Final = {Family.IPV4: ip_interface("192.0.2.10/24"), Family.IPV6: ip_interface("fd69:2::10/64")}
_SUBNET: Final = {Family.IPV4: 24, Family.IPV6: 64}  # of an address of which only itself is known
_TRIED: Final = 1000  # addresses of a network that may be taken, before it counts as full
_RESERVED: Final = {"lo", "all", "default"}  # see lab.topology.checks


class Facts:
    """What is known of a node.

    :param endpoints: the endpoints' addresses, which nobody else may have.
    """

    def __init__(self, bundle: Bundle, endpoints: Iterable[IPAddress]) -> None:
        self._bundle = bundle
        self._texts = tuple(one.text for one in bundle.rules)
        self.own = {own.ip for interface in bundle.interfaces for own in interface.addresses}
        pods = list(endpoints)
        self._families = dict.fromkeys(map(Family.of, pods))
        self._taken = {*self.own, *pods}
        self._said: dict[str, set[str]] = {}  # the last parts of the IPv4 addresses that rules name, by the others

    @cached_property
    def _named(self) -> tuple[str, ...]:
        """The interfaces that rules name, patterns as they are."""
        return tuple(dict.fromkeys(name for text in self._texts for name in _INTERFACES.findall(text)))

    # --- interfaces ------------------------------------------------------------------------------------------

    @cached_property
    def uplink(self) -> str:
        """The interface of the default route, else the first that is called like one, else eth0."""
        for route in self._bundle.routes:
            if route.to.prefixlen == 0 and is_name(route.interface):
                return route.interface
        names = (*(one.name for one in self._bundle.interfaces), *self._named)
        return next((name for name in names if _OF_UPLINK.match(name) and is_name(name)), "eth0")

    def interface_to(self, address: IPAddress) -> str:
        """Return the interface by which the node's routes lead to an address; the uplink where none is known."""
        fitting = [one for one in self._bundle.routes if one.to.version == address.version and address in one.to]
        best = max(fitting, key=lambda one: one.to.prefixlen, default=None)
        return best.interface if best is not None and is_name(best.interface) else self.uplink

    def pod_interface(self, endpoints: Iterable[IPAddress]) -> str:
        """Return the interface of a pod that is no endpoint, by addresses, routes or rules; else pod0."""
        addressed = [one.name for one in self._bundle.interfaces if one.addresses]
        of_endpoints = {self.interface_to(one) for one in endpoints}
        routed = [one.interface for one in self._bundle.routes if one.interface not in of_endpoints]
        for name in (*addressed, *routed, *self._named):
            if name != self.uplink and is_of_pods(name) and is_name(name):
                return name
        made = (f"{name.rstrip('+*')}0" for name in self._named if name.endswith(("+", "*")))
        return next((name for name in made if is_of_pods(name)), "pod0")

    # --- addresses -------------------------------------------------------------------------------------------

    def addresses_of(self, interface: str, family: Family) -> list[IPInterface]:
        """Return an interface's addresses in a subnet with others."""
        addresses = next((one.addresses for one in self._bundle.interfaces if one.name == interface), ())
        return [one for one in addresses if Family.of(one) is family and _is_shared(one)]

    def node_address(self, family: Family) -> IPInterface:
        """Return the node's address: its uplink's, else by nftables mode's set of addresses for node ports."""
        if known := self.addresses_of(self.uplink, family):
            return known[0]
        said = (ip_address(found[1]) for text in self._texts for found in _NODE_PORT_IPS.finditer(text))
        address = next((one for one in said if Family.of(one) is family), None)
        return ip_interface(f"{address}/{_SUBNET[family]}") if address else _UNKNOWN[family]

    def gateway(self, own: IPInterface) -> IPInterface:
        """Return the other end in a subnet of the node's: the default route's gateway, else a free address."""
        gateways = (one.via for one in self._bundle.routes if one.to.prefixlen == 0)
        known = next((one for one in gateways if one is not None and one in own.network), None)
        return ip_interface(f"{known or self.free(own.network, own.ip)}/{own.network.prefixlen}")

    def pod_address(self, interface: str, family: Family, beside: IPAddress) -> IPAddress:
        """Return the address of a pod on an interface, else a free one: of the cluster's, else beside another pod's."""
        for route in self._bundle.routes:
            single = route.to.prefixlen == route.to.max_prefixlen
            if single and route.interface == interface and Family.of(route.to) is family:
                return route.to.network_address
        near = ip_network(f"{beside}/{24 if family is Family.IPV4 else 120}", strict=False)
        cidr = self.cluster_cidrs.get(family) or near.supernet(8)
        places = (near, cidr) if cidr.overlaps(near) else (cidr,)
        found = next((address for place in places for address in self._free(place)), None)
        if found is None:
            raise _full(cidr)
        return found

    @cached_property
    def cluster_cidrs(self) -> dict[Family, IPNetwork]:
        """The pods' network of each family of the endpoints, by the rules that tell pods from others."""
        found = ((family, self._cluster_cidr(family)) for family in self._families)
        return {family: cidr for family, cidr in found if cidr is not None}

    def _cluster_cidr(self, family: Family) -> IPNetwork | None:
        for text in self._texts:
            for found in _CLUSTER_CIDR.finditer(text):
                try:
                    cidr = ip_network(next(filter(None, found.groups())))
                except ValueError:
                    continue
                if Family.of(cidr) is family and not cidr.is_loopback:
                    return cidr
        return None

    def free(self, network: IPNetwork, *taken: IPAddress) -> IPAddress:
        """Return an address of a network that nobody is known to have: the last that no rule names.

        :raises InputError: all that were tried are taken.
        """
        found = next((address for address in self._free(network) if address not in taken), None)
        if found is None:
            raise _full(network)
        return found

    def _free(self, network: IPNetwork) -> Iterator[IPAddress]:
        """Yield the addresses that nobody is known to have, the last first, of so many as are tried."""
        make = IPv4Address if network.version == 4 else IPv6Address
        top = int(network.broadcast_address) - 1
        for number in range(top, max(int(network.network_address), top - _TRIED), -1):
            address = make(number)
            if address not in self._taken and not self._is_said(address):
                yield address

    def _is_said(self, address: IPAddress) -> bool:
        """Report whether a rule names an address. Rules may be long, so they are read once for all beside it."""
        text = str(address)
        if address.version == 4:
            beside, _, own = text.rpartition(".")
            if beside not in self._said:
                pattern = re.compile(rf"{re.escape(beside)}\.(\d+)")
                self._said[beside] = {found for text in self._texts for found in pattern.findall(text)}
            return own in self._said[beside]
        pattern = re.compile(rf"(?<![\w.:]){re.escape(text)}(?![\w.:])")
        return any(text in one and pattern.search(one) for one in self._texts)


def _full(network: IPNetwork) -> InputError:
    return InputError(f"no address of {network} is free for the lab's own", cure="give the node's addresses as well")


def is_of_pods(name: str) -> bool:
    """Report whether an interface is called like a pod's, or the bridge of pods."""
    return bool(_OF_PODS.match(name))


def is_name(name: str) -> bool:
    """Report whether a topology takes an interface of this name."""
    return re.fullmatch(INTERFACE, name) is not None and name not in _RESERVED


def _is_shared(own: IPInterface) -> bool:
    own_alone = own.network.prefixlen > own.max_prefixlen - 2
    return not (own.is_link_local or own.is_loopback or own_alone)
