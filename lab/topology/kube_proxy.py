# SPDX-License-Identifier: MIT
"""The kube-proxies of a topology's nodes: what each is told, and the rules that it writes. Nothing runs here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.kubeproxy import ProxyOptions, Release, find_release, iptables, nftables
from lab.kubeproxy.notes import notes
from lab.kubeproxy.said import plain
from lab.kubeproxy.settings import DEFAULT_VERSIONS
from lab.topology.node_change import NodeChange
from lab.topology.routes import node_address
from lab.vocabulary import BE_LIBERAL, Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.topology.model import Host, Topology


def proxy_options(topology: Topology, node: Host, family: Family, change: NodeChange) -> ProxyOptions:
    """Return the settings of a node's kube-proxy."""
    said = {field: plain(value) for field, value in node.settings.items()}
    if change.sysctls.get(BE_LIBERAL, "0") != "0":
        said["conntrack_tcp_be_liberal"] = True  # kube-proxy finds it set, and leaves it so
    return ProxyOptions(
        family=family,
        version=node_release(node).name,
        service_cidrs=tuple(str(cidr) for cidr in topology.service_cidrs),
        node_name=node.name,
        node_addresses=_node_addresses(topology, node, family),
        own_cluster=True,
        **said,
    )


def topology_notes(topology: Topology, family: Family) -> Iterator[str]:
    """Yield what has to be known of the kube-proxies of a topology's nodes beside their rules."""
    for node in topology.nodes:
        options = proxy_options(topology, node, family, NodeChange())
        mode = node.proxy_mode or ProxyMode.IPTABLES
        objects = topology.services, topology.endpoint_slices
        yield from notes(*objects, options, mode, zone="node-zone", name="the host's name")


def node_release(node: Host) -> Release:
    """Return which kube-proxy a node has."""
    return find_release(node.proxy_version or DEFAULT_VERSIONS[node.proxy_mode or ProxyMode.IPTABLES])


def _node_addresses(topology: Topology, node: Host, family: Family) -> tuple[str, ...]:
    """Return the node's addresses, the one that it is known by first."""
    primary = node_address(topology, node.name, family)
    others = (address for address in topology.addresses(node.name) if address != primary)
    return tuple(str(address) for address in (primary, *others) if address is not None)


@dataclass(frozen=True)
class NodeProxy:
    """All that the kube-proxy of a node is given when it starts.

    :param options: its settings, for each address family.
    :param additions: what a fix adds to the rules, in the same order.
    :param services: and ``endpoint_slices``: what it serves at first.
    :param change: what a fix changes besides the rules.
    """

    mode: ProxyMode
    options: tuple[ProxyOptions, ...]
    additions: tuple[str, ...]
    services: tuple[Service, ...] = field(repr=False)
    endpoint_slices: tuple[EndpointSlice, ...] = field(repr=False)
    change: NodeChange


def node_proxy(topology: Topology, node: Host, families: Iterable[Family], change: NodeChange) -> NodeProxy:
    """Return what the kube-proxy of a node is given."""
    mode = node.proxy_mode or ProxyMode.IPTABLES
    options = tuple(proxy_options(topology, node, family, change) for family in families)
    return NodeProxy(
        mode,
        options,
        tuple(addition(topology, one.family, change, mode) for one in options),
        topology.services,
        topology.endpoint_slices,
        change,
    )


def render_rules(
    topology: Topology, options: ProxyOptions, change: NodeChange, mode: ProxyMode | None = ProxyMode.IPTABLES
) -> tuple[str, ...]:
    """Return what a node is given, in the order in which it is loaded; what a fix adds comes last."""
    mode = mode or ProxyMode.IPTABLES
    added = addition(topology, options.family, change, mode)
    return first_rules(topology.services, topology.endpoint_slices, options, added, mode)


def first_rules(
    services: Iterable[Service], slices: Iterable[EndpointSlice], options: ProxyOptions, added: str, mode: ProxyMode
) -> tuple[str, ...]:
    """Return what is loaded first, in that order.

    :returns: in iptables mode two inputs of iptables-restore, the kubelet's and kube-proxy's rules and the jumps to
        them; in nftables mode one script. What is ``added`` comes last.
    """
    if mode is ProxyMode.NFTABLES:
        return (nftables_script(services, slices, options, added),)
    rules = iptables.render(services, slices, options)
    return rules.kubelet + rules.restore, rules.jumps + added


def nftables_script(
    services: Iterable[Service], slices: Iterable[EndpointSlice], options: ProxyOptions, added: str
) -> str:
    """Return all rules of nftables mode, and what a fix adds to kube-proxy's table."""
    script = nftables.render(services, slices, options)
    # v1.29 drops what is INVALID and does not count it; the lab's verdicts rest on what rules counted.
    return script.replace(" ct state invalid drop\n", " ct state invalid counter drop\n") + added


def addition(topology: Topology, family: Family, change: NodeChange, mode: ProxyMode) -> str:
    """Return what a fix adds to a node's rules, with this topology's networks of pods."""
    pods = _pods(topology, family)
    if mode is ProxyMode.IPTABLES:
        return _for_each_pair(change.iptables, pods)
    words = {
        "TABLE": nftables.table_of(family),
        "NETWORK": family.nft,
        "PODS": ", ".join(pods),
    }
    added = change.nftables
    for word, meaning in words.items():
        added = added.replace(word, meaning)
    return added


def _pods(topology: Topology, family: Family) -> list[str]:
    """Return the networks that the pods of a topology are in.

    The cluster's CIDRs where a node knows them, else those of every host that is neither a node nor where a node sends
    whatever it does not know.
    """
    cidrs = (cidr for node in topology.nodes for cidr in node.cluster_cidrs if Family.of(cidr) is family)
    if known := list(dict.fromkeys(map(str, cidrs))):
        return known
    nodes = {node.name for node in topology.nodes}
    gateways = {route.via for node in topology.nodes for route in node.main_routes if route.to == "default"}
    networks = (
        own.network
        for host in topology.hosts
        if host.name not in nodes and (host.forwarding or gateways.isdisjoint(topology.addresses(host.name)))
        for end in topology.ends(host.name)
        for own in end.addresses
        if Family.of(own) is family
    )
    return list(dict.fromkeys(map(str, networks)))


def _for_each_pair(rules: str, networks: Sequence[str]) -> str:
    lines: list[str] = []
    for line in rules.splitlines():
        if "PODS" not in line:
            lines.append(line)
            continue
        lines += [
            line.replace("PODS", source, 1).replace("PODS", destination, 1)
            for source in networks
            for destination in networks
        ]
    return "".join(f"{line}\n" for line in lines)
