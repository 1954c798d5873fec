# SPDX-License-Identifier: MIT
"""What a topology must keep so that a kernel can build it and its packets have a way.

Each rule raises :class:`~lab.kubernetes.errors.TopologyError` for the first thing that breaks it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import InputError, nearest
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.said import incomplete, unfit
from lab.kubeproxy.settings import DEFAULT_VERSIONS, KEYS
from lab.kubernetes.errors import Path, TopologyError, found
from lab.topology.check_routes import check_routes
from lab.topology.names import INTERFACE, NAME
from lab.topology.segments import CircleError
from lab.topology.ways import underlay
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.releases import Release
    from lab.topology.model import End, Host, Topology
    from lab.topology.values import IPAddress, IPInterface, IPNetwork

# Names that the kernel keeps for itself in every namespace: its loopback device, and the two directories that
# stand beside the interfaces' own in /proc/sys/net/ipv4/conf (Documentation/networking/ip-sysctl.rst).
_RESERVED = {"lo", "all", "default"}
_LEAST_MTU = 1280  # bytes


def check(topology: Topology) -> None:
    """Check a topology against every rule.

    :raises TopologyError: for the first that it breaks.
    """
    rules = (
        _names,
        _proxies,
        _links,
        _interfaces,
        _of_bridges,
        _segments,
        _addresses,
        _subnets,
        check_routes,
        _tunnels,
        _services,
        _service_cidrs,
        _cluster_ips,
        _endpoints,
    )
    for rule in rules:
        rule(topology)


def _names(topology: Topology) -> None:
    cure = "a-z, 0-9 and '-', at most 63, as in a DNS label"
    if not re.fullmatch(NAME, topology.name):
        raise TopologyError(("topology",), f"{found(topology.name)} is no name", cure)
    if not topology.hosts:
        raise TopologyError(("hosts",), "a topology needs a host", "write one as 'client: {}'")
    seen: set[str] = set()
    for host in topology.hosts:
        if not re.fullmatch(NAME, host.name):
            raise TopologyError(("hosts", host.name), f"{found(host.name)} is no name of a host", cure)
        if host.name in seen:
            raise TopologyError(("hosts", host.name), "duplicate host", "give each its own name")
        seen.add(host.name)


def _proxies(topology: Topology) -> None:
    for host in topology.hosts:
        path: Path = ("hosts", host.name)
        if host.proxy_mode is None:
            _no_proxy(host, path)
        release = _release(host, (*path, "proxy-version"))
        if host.proxy_mode is ProxyMode.NFTABLES and host.backend is Backend.LEGACY:
            cure = "leave it out, or write proxy-mode: iptables"
            raise TopologyError((*path, "backend"), "legacy is a backend of iptables mode alone", cure)
        for key, cidrs in (("cluster-cidrs", host.cluster_cidrs), ("node-pod-cidrs", host.node_pod_cidrs)):
            families = [Family.of(cidr) for cidr in cidrs]
            for index, family in enumerate(families):
                if family in families[:index]:
                    message = f"a second CIDR of {family}; kube-proxy takes one a family"
                    raise TopologyError((*path, key, index), message)
        if release is not None and host.proxy_mode is not None:
            _settings(host, host.proxy_mode, release, path)
        _node_ips(topology, host, (*path, "node-ips"))


def _release(host: Host, path: Path) -> Release | None:
    """Return which kube-proxy a host has."""
    version = host.proxy_version or (DEFAULT_VERSIONS[host.proxy_mode] if host.proxy_mode else None)
    try:
        return None if version is None else find_release(version)
    except InputError as error:
        raise TopologyError(path, error.message, error.cure) from None


def _settings(host: Host, mode: ProxyMode, release: Release, path: Path) -> None:
    """Refuse settings that this kube-proxy does not know, or that want others."""
    given = host.settings
    for field, value in given.items():
        if wrong := unfit(KEYS[field], value, mode, release):
            raise TopologyError((*path, KEYS[field].key), wrong.message, wrong.cure)
    if lacking := incomplete(given):
        field, wrong = lacking
        raise TopologyError((*path, KEYS[field].key), wrong.message, wrong.cure)


def _node_ips(topology: Topology, host: Host, path: Path) -> None:
    families = [Family.of(address) for address in host.node_ips]
    for index, address in enumerate(host.node_ips):
        if families[index] in families[:index]:
            raise TopologyError((*path, index), f"a second address of {families[index]}", "keep one a family")
        if address not in topology.addresses(host.name):
            own = ", ".join(map(str, topology.addresses(host.name, families[index])))
            cure = f"its {families[index]} addresses are {own}" if own else "give it one on a link"
            raise TopologyError((*path, index), f"{host.name} does not have {address}", cure)


def _no_proxy(host: Host, path: Path) -> None:
    """Refuse the settings of a proxy where there is none."""
    given = {
        "proxy-version": host.proxy_version is not None,
        "backend": host.backend is not Backend.NFT,
        "node-ips": bool(host.node_ips),
        **{KEYS[field].key: True for field in host.settings},
    }
    for key, is_given in given.items():
        if is_given:
            raise TopologyError((*path, key), "says nothing without proxy-mode", "add proxy-mode: iptables")


def _links(topology: Topology) -> None:
    hosts = {host.name for host in topology.hosts}
    for index, link in enumerate(topology.links):
        for side, end in enumerate(link.ends):
            if end.host not in hosts:
                path: Path = ("links", index, side, "host")
                raise TopologyError(path, f"no host is named {found(end.host)}", nearest(end.host, hosts))
        if len(link.ends) < 2:
            raise TopologyError(("links", index), "a link has two ends or more", "write each as an item")
        numbers = {end.vxlan for end in link.ends}
        if len(numbers) > 1:
            raise TopologyError(("links", index, 1, "vxlan"), _unlike(link.ends), "write the same at both ends")
        if link.is_shared and numbers != {None}:
            raise TopologyError(("links", index, 0, "vxlan"), "a tunnel has two ends", "write one a pair")
        seen: set[str] = set()
        for end in link.ends:
            if end.host in seen:
                raise TopologyError(("links", index), f"{end.host} is linked to itself", "a link joins different hosts")
            seen.add(end.host)


def _unlike(ends: Sequence[End]) -> str:
    """Say how the numbers at a tunnel's ends differ."""
    has = next(end for end in ends if end.vxlan is not None)
    for end in ends:
        if end.vxlan is None:
            return f"{has.host} has vxlan {has.vxlan} at its end of the tunnel, and {end.host} has none"
    return f"the ends of a tunnel have two numbers, {ends[0].vxlan} and {ends[1].vxlan}"


def _segments(topology: Topology) -> None:
    """Refuse segments in which frames go in a circle: no bridge of a lab looks for one (STP, IEEE 802.1D)."""
    places = {end: (index, side) for index, link in enumerate(topology.links) for side, end in enumerate(link.ends)}
    for end, place in places.items():
        try:
            topology.neighbours(end)
        except CircleError as circle:
            message = f"frames of {end.host} {end.interface} go in a circle by the bridges of {circle.end.host}"
            raise TopologyError(("links", *max(place, places[circle.end])), message, "leave one link out") from None


def _interfaces(topology: Topology) -> None:
    seen: dict[tuple[str, str], int] = {}
    for index, link in enumerate(topology.links):
        for side, end in enumerate(link.ends):
            path: Path = ("links", index, side, "interface")
            if not re.fullmatch(INTERFACE, end.interface):
                cure = "1 to 15 of a-z, A-Z, 0-9, '_', '.' and '-', not beginning with '.' or '-'"
                raise TopologyError(path, f"{found(end.interface)} is no name of an interface", cure)
            if end.interface in _RESERVED:
                message = f"{end.interface!r} is a name that the kernel keeps for itself"
                raise TopologyError(path, message, "take another, such as eth0")
            if (end.host, end.interface) in seen:
                message = f"{end.host} has an interface {end.interface!r} already"
                cure = f"it is in links[{seen[end.host, end.interface]}]; give this one another name"
                raise TopologyError(path, message, cure)
            seen[end.host, end.interface] = index
            _bridge(topology, end, ("links", index, side))
            if end.mtu is not None and end.mtu < _LEAST_MTU and any(own.version == 6 for own in end.addresses):
                message = f"{end.mtu} is too small for IPv6 (RFC 8200, 5)"
                raise TopologyError(("links", index, side, "mtu"), message, f"take {_LEAST_MTU} or more")


def _bridge(topology: Topology, end: End, path: Path) -> None:
    """Refuse a port of a bridge that has no name of one, or other addresses than the other ports."""
    if not end.bridge:
        return
    taken = {other.interface for other in topology.ends(end.host)} | _RESERVED
    if not re.fullmatch(INTERFACE, end.bridge) or end.bridge in taken:
        raise TopologyError((*path, "bridge"), f"{found(end.bridge)} is no name of a bridge", "take one such as cbr0")
    first = next(other for other in topology.ends(end.host) if other.bridge == end.bridge)
    if set(first.addresses) != set(end.addresses):
        message = f"{end.bridge} has other addresses at its port {end.interface} than at {first.interface}"
        raise TopologyError((*path, "addresses"), message, "they are the bridge's: write the same at each port")


def _of_bridges(topology: Topology) -> None:
    """Refuse what is said of the bridges of a host that has none."""
    for host in topology.hosts:
        given = {
            "hairpin": host.hairpin,
            "promiscuous": host.promiscuous,
            "bridge-nf-call-iptables": host.bridge_nf_call_iptables is not None,
        }
        if any(end.bridge for end in topology.ends(host.name)):
            continue
        for key, is_given in given.items():
            if is_given:
                message = f"says nothing without a bridge, and {host.name} has none"
                cure = "leave it away, or make an interface of its links a port of one: bridge: cbr0"
                raise TopologyError(("hosts", host.name, key), message, cure)


def _addresses(topology: Topology) -> None:
    owners: dict[IPAddress, tuple[str, str]] = {}
    for index, link in enumerate(topology.links):
        for side, end in enumerate(link.ends):
            for number, address in enumerate(end.addresses):
                path: Path = ("links", index, side, "addresses", number)
                _usable(address, path)
                place = (end.host, end.bridge)
                if address.ip in owners and not (end.bridge and owners[address.ip] == place):
                    message = f"{owners[address.ip][0]} has {address.ip} already"
                    raise TopologyError(path, message, "give each its own address")
                owners[address.ip] = place


def _usable(address: IPInterface, path: Path) -> None:
    """Refuse what no interface of a lab can have as its own unicast address."""
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise TopologyError(path, f"{address.ip} is no unicast address of a host", "take one of 10.0.0.0/8")
    if address.version == 6 and address.is_link_local:
        cure = "each interface has one by itself; write a unique local one, of fd00::/8"
        raise TopologyError(path, f"{address.ip} is link-local", cure)
    # Two addresses and one address have neither network nor broadcast address: RFC 3021, RFC 6164.
    network = address.network
    if network.prefixlen < network.max_prefixlen - 1:
        if address.ip == network.network_address:
            # In IPv6 it is the anycast address of the subnet's routers (RFC 4291 section 2.6.1).
            raise TopologyError(path, f"{address.ip} is the address of the subnet {network}", f"take {network[1]}")
        if address.version == 4 and address.ip == network.broadcast_address:
            message = f"{address.ip} is the broadcast address of {network}"
            raise TopologyError(path, message, f"take {network[-2]}")


class _Span(NamedTuple):
    """A subnet as its first and last address; sorts by them."""

    version: int
    first: int
    last: int
    link: int
    path: Path
    network: IPNetwork


def _subnets(topology: Topology) -> None:
    spans: list[_Span] = []
    segments: dict[End, int] = {}  # by the first of its links
    for index, link in enumerate(topology.links):
        for side, end in enumerate(link.ends):
            others = _beside(topology, end)
            if end not in segments:
                joined = (port for one in (end, *others) for port in topology.segments.ports(one))
                segments |= dict.fromkeys(joined, index)
            networks = {address.network for other in others for address in other.addresses}
            for number, address in enumerate(end.addresses):
                network, path = address.network, ("links", index, side, "addresses", number)
                if _is_routed(address, networks):
                    continue
                if network not in networks:
                    raise TopologyError(path, *_alone(address, end, others))
                first = int(network.network_address)
                span = _Span(network.version, first, first + network.num_addresses - 1, segments[end], path, network)
                spans.append(span)
    # Subnets are nested or apart: in the order of their first addresses, only the outermost can overlap.
    spans.sort(key=lambda span: span[:4])
    outer: _Span | None = None
    for span in spans:
        if outer is None or span.version != outer.version or span.first > outer.last:
            outer = span
        elif span.link != outer.link:
            earlier, later = sorted((outer, span), key=lambda one: one.link)
            message = f"subnet {later.network} overlaps {earlier.network} of links[{earlier.link}]"
            raise TopologyError(later.path, message, "give each link its own subnet")
        elif span.last > outer.last:
            outer = span


def _beside(topology: Topology, end: End) -> list[End]:
    """Return whom an interface, or the bridge that it is a port of, has on its segment."""
    ports = topology.segments.ports(end)
    return list(dict.fromkeys(other for port in ports for other in topology.neighbours(port) if other not in ports))


def _alone(address: IPInterface, end: End, others: Sequence[End]) -> tuple[str, str]:
    """Return what is wrong with an address that shares its subnet with nobody, and the cure."""
    hosts = list(dict.fromkeys(other.host for other in others))
    cure = f"give {hosts[0]} an address in {address.network}"
    if len(hosts) == 1:
        return f"{address} of {end.host} and the other end, {hosts[0]}, are in no common subnet", cure
    return f"{address} of {end.host} is in no subnet of who shares its segment: {', '.join(hosts[:5])}", cure


def _is_routed(address: IPInterface, others: set[IPNetwork]) -> bool:
    """Report whether an address is one that routes lead to by another subnet of its link, as some CNIs give pods."""
    single = address.network.prefixlen == address.max_prefixlen
    return single and any(one.version == address.version for one in others)


def _tunnels(topology: Topology) -> None:
    tunnels = ((index, link) for index, link in enumerate(topology.links) if link.is_tunnel)
    for index, link in tunnels:
        near, far = (end.host for end in link.ends)
        families = {Family.of(own) for end in link.ends for own in end.addresses}
        for family in sorted(families):
            if not (underlay(topology, near, far, family) and underlay(topology, far, near, family)):
                message = f"{near} and {far} do not reach each other by {family} on links that are no tunnels"
                cure = "a tunnel's packets travel by other links: add one, or a route"
                raise TopologyError(("links", index, 0, "vxlan"), message, cure)


def _services(topology: Topology) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for index, service in enumerate(topology.services):
        namespace, name = service.metadata.namespace, service.metadata.name
        if name in seen[namespace]:
            message = f"a second Service {namespace}/{name}"
            raise TopologyError(("services", index, "metadata", "name"), message, "keep one, or rename it")
        seen[namespace].add(name)


def _service_cidrs(topology: Topology) -> None:
    """Refuse ranges of cluster IPs that hold what hosts or pods have: the nodes would drop what goes there."""
    links = (own.network for link in topology.links for end in link.ends for own in end.addresses)
    pods = (cidr for host in topology.hosts for cidr in host.cluster_cidrs)
    taken = [*(("a link has", network) for network in links), *(("pods have", cidr) for cidr in pods)]
    for index, cidr in enumerate(topology.service_cidrs):
        for who, network in taken:
            if cidr.version == network.version and cidr.overlaps(network):
                message = f"{cidr} overlaps {network}, which {who}"
                raise TopologyError(("service-cidrs", index), message, "take a range that nobody else has addresses of")


def _cluster_ips(topology: Topology) -> None:
    """Refuse a cluster IP outside of the ranges of its family, as the API server does."""
    for index, service in enumerate(topology.services if topology.service_cidrs else ()):
        for place, address in enumerate(service.spec.all_cluster_ips):
            if address in {"", "None"}:
                continue
            own = ip_address(address)
            cidrs = [cidr for cidr in topology.service_cidrs if cidr.version == own.version]
            if cidrs and all(own not in cidr for cidr in cidrs):
                key: Path = ("clusterIPs", place) if service.spec.cluster_ips else ("clusterIP",)
                message = f"{address} is outside of the topology's service-cidrs, {', '.join(map(str, cidrs))}"
                cure = "write the range that cluster IPs are taken from there, or leave service-cidrs out"
                raise TopologyError(("services", index, "spec", *key), message, cure)


def _endpoints(topology: Topology) -> None:
    owners = {str(address.ip) for link in topology.links for end in link.ends for address in end.addresses}
    if owners.issuperset(topology.endpoint_addresses):
        return
    for index, piece in enumerate(topology.endpoint_slices):
        for number, endpoint in enumerate(piece.endpoints if piece.address_type != "FQDN" else ()):
            for place, address in enumerate(endpoint.addresses):
                if address not in owners:
                    path = ("endpoint_slices", index, "endpoints", number, "addresses", place)
                    cure = "give it to a host, or leave the endpoint out"
                    raise TopologyError(path, f"no host has the address {address}", cure)
