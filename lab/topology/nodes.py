# SPDX-License-Identifier: MIT
"""The nodes of a cluster, by its Node objects, or by where its endpoints and pods are said to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError
from lab.kubeproxy.releases import NEWEST, find_release
from lab.topology.space import USUAL
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubernetes.cluster import Node
    from lab.topology.cluster import Cluster
    from lab.topology.space import Space
    from lab.topology.values import IPAddress, IPNetwork

MOST_NODES: Final = 8
_USUAL_NAME: Final = "node"
_LABS: Final = ("client", "outside", "router")  # hosts that are there besides
#: What the pods of a node have where nobody says, and a cluster's pods have with flannel and with kind.
_PODS: Final = {
    Family.IPV4: tuple(f"10.244.{number}.0/24" for number in range(256)),
    Family.IPV6: tuple(f"fd00:10:244:{number:x}::/64" for number in range(256)),
}


@dataclass(frozen=True)
class Member:
    """A node.

    :param name: of its host; ``called`` is what the objects call it.
    :param addresses: its InternalIP of each family.
    :param cidrs: the range of its pods in each family.
    """

    name: str
    called: str
    addresses: dict[Family, IPAddress] = field(default_factory=dict)
    cidrs: dict[Family, IPNetwork] = field(default_factory=dict)
    zone: str = ""
    version: str = f"v1.{NEWEST}"


def members(cluster: Cluster, named: Iterable[str], busy: Iterable[str], notes: list[str]) -> list[Member]:
    """Return the nodes, at most :data:`MOST_NODES`.

    :param named: by endpoints and pods; ``busy`` are those with an endpoint that is asked, which are kept first.
    """
    known = {one.value.metadata.name: one.value for one in cluster.nodes}
    added = sorted({*(busy if known else named)} - {*known})
    if known and added:
        notes.append(f"no Node is given of {', '.join(added)}, where endpoints are: made by the lab")
    every = [*known, *added] or [_USUAL_NAME]
    if not known:
        words = "the endpoints' nodeName tells of" if added else "nothing tells of any, so there is one:"
        notes.append(f"no Node is given; {words} {', '.join(every[:MOST_NODES])}")
    kept = every
    if len(every) > MOST_NODES:
        first = list(dict.fromkeys(one for one in busy if one in every))
        kept = [*first, *(one for one in every if one not in first)][:MOST_NODES]
        notes.append(f"of {len(every)} nodes {len(kept)} are built, first of all those with endpoints that are asked")
    names = _host_names(kept)
    for called, name in names.items():
        if called != name:
            notes.append(f"the node {called} is the host {name}: names of hosts have no dots, and some are the lab's")
    found = [_member(names[one], one, known.get(one), cluster) for one in kept]
    _check_apart(found, cluster)
    _say_versions(found, known, notes)
    return found


def _check_apart(found: Sequence[Member], cluster: Cluster) -> None:
    """Refuse Nodes with one address, or with ranges of pods that overlap."""
    places = {one.value.metadata.name: one.where for one in cluster.nodes}
    for number, one in enumerate(found):
        for other in found[:number]:
            for family in one.addresses.keys() & other.addresses.keys():
                if one.addresses[family] == other.addresses[family]:
                    message = f"{other.called} has the InternalIP {one.addresses[family]} already"
                    raise places[one.called].refusal(message, "give each Node its own", ("status", "addresses"))
            for family in one.cidrs.keys() & other.cidrs.keys():
                if one.cidrs[family].overlaps(other.cidrs[family]):
                    message = f"{one.cidrs[family]} overlaps {other.cidrs[family]} of {other.called}"
                    raise places[one.called].refusal(message, "give each Node a range of its own", ("spec", "podCIDR"))


def _host_names(called: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in called:
        base = name = host_name(one)
        number = 1
        while name in found.values() or name in _LABS:
            number += 1
            name = f"{base[:60]}-{number}"
        found[one] = name
    return found


def host_name(called: str) -> str:
    """Return an object's name as a host's, a DNS label."""
    return called.replace(".", "-")[:63].strip("-")


def _say_versions(found: Sequence[Member], known: dict[str, Any], notes: list[str]) -> None:
    versions = ", ".join(dict.fromkeys(one.version for one in found))
    by = "as the Nodes say" if any(one.version for one in known.values()) else "as no Node says which"
    notes.append(f"kube-proxy is {versions} in iptables mode, {by}: --proxy-version and --proxy-mode take others")


def _member(name: str, called: str, node: Node | None, cluster: Cluster) -> Member:
    if node is None:
        return Member(name, called)
    addresses: dict[Family, IPAddress] = {}
    for text in node.internal_ips:
        addresses.setdefault(Family.of(ip_address(text)), ip_address(text))
    cidrs: dict[Family, IPNetwork] = {}
    for text in node.pod_cidrs:
        cidrs.setdefault(Family.of(ip_network(text)), ip_network(text))
    version = f"v1.{NEWEST}"
    if node.version:
        try:
            version = find_release(node.version).name
        except InputError as error:
            where = next(one.where for one in cluster.nodes if one.value is node)
            raise where.refusal(error.message, error.cure, ("status", "nodeInfo", "kubeletVersion")) from None
    return Member(name, called, addresses, cidrs, node.zone, version)


def with_cidrs(
    every: Sequence[Member], families: Sequence[Family], pods: dict[str, list[IPAddress]], space: Space
) -> Iterator[Member]:
    """Yield the nodes with a range of pods in each family: their own, else that of their first pod, else the lab's.

    :param pods: the addresses of each node's pods, by its host's name.
    """
    taken = [cidr for one in every for cidr in one.cidrs.values()]
    for one in every:
        cidrs = {family: cidr for family, cidr in one.cidrs.items() if family in families}
        for family in families:
            if family not in cidrs:
                cidrs[family] = _range(one, family, pods, taken, space)
                taken.append(cidrs[family])
        yield Member(one.name, one.called, one.addresses, cidrs, one.zone, one.version)


def _range(
    one: Member, family: Family, pods: dict[str, list[IPAddress]], taken: Sequence[IPNetwork], space: Space
) -> IPNetwork:
    mine = [address for address in pods.get(one.name, ()) if Family.of(address) is family]
    for address in mine[:1]:
        cidr = ip_network(f"{address}/{USUAL[family]}", strict=False)
        if not space.holds(cidr, mine) and not any(_overlap(cidr, other) for other in taken):
            return cidr
    apart = [text for text in _PODS[family] if not any(_overlap(ip_network(text), other) for other in taken)]
    return space.unused(apart)


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)
