# SPDX-License-Identifier: MIT
"""A topology from a cluster's objects alone: its nodes, its Services' endpoints, and clients to ask them from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from lab.errors import InputError, ServiceError, nearest
from lab.kubernetes.errors import TopologyError
from lab.topology.backing import Backing, backing, slices_of
from lab.topology.layout import OUTSIDE, ROUTER, Layout, cover
from lab.topology.model import Topology
from lab.topology.nodes import Member, host_name, members, with_cidrs
from lab.topology.space import Space
from lab.topology.values import IPAddress, IPNetwork
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubernetes.objects import Endpoint, EndpointSlice, Service
    from lab.topology.cluster import Cluster

MOST_SERVICES: Final = 12  # of those that nobody names
MOST_ENDPOINTS: Final = 24
_NAME: Final = "objects"
_OTHERS: Final = "service.kubernetes.io/service-proxy-name"
_NOISE: Final = "kubectl.kubernetes.io/last-applied-configuration"

Pod = tuple[str, str]
"""A pod by its namespace and name; of an address of which no pod is known, by nothing and the address."""


@dataclass(frozen=True)
class Made:
    """A topology made of objects.

    :param notes: in sentences, what the lab has chosen or given, and what is left out.
    """

    topology: Topology
    notes: tuple[str, ...]


def topology_of(cluster: Cluster, service: str | None = None, sources: Sequence[str] = ()) -> Made:
    """Make a topology of a cluster's objects.

    :param service: which Service, as ``[NAMESPACE/]NAME[:PORT]``; None for all, as far as they are few.
    :param sources: the files that they are from, for the description.
    :raises InputError: no topology can be made of them.
    """
    if not cluster.services:
        cure = "give what `kubectl get services,endpointslices,nodes -A -o yaml` prints"
        raise InputError("there is no Service in it", source=", ".join(sources) or None, cure=cure)
    notes = list(cluster.notes)
    services = _chosen(cluster, service, notes)
    named = _named_nodes(cluster)
    backings = [backing(cluster, one, named or ["node"]) for one in services]
    notes += [one.said for one in backings if one.said]
    if names := [piece.metadata.name for one in backings for piece in one.slices if piece.address_type == "FQDN"]:
        notes.append(f"left out, as kube-proxy does nothing for names: the EndpointSlices {_few(names)} (FQDN)")
    return _Maker(cluster, backings, notes).made(named, sources)


# --- which Services -----------------------------------------------------------------------------------------


def _chosen(cluster: Cluster, service: str | None, notes: list[str]) -> list[Service]:
    every = [one.value for one in cluster.services]
    asked = [one for one in every if _is_served(one)]
    if service:
        return [_named(every, asked, service.partition(":")[0])]
    if not asked:
        raise InputError("no Service has a cluster IP and is kube-proxy's own", cure="give one that has")
    if without := [one.key for one in every if one not in asked]:
        notes.append(
            f"left out, as kube-proxy does nothing for them (no cluster IP, or another proxy's): {_few(without)}"
        )
    if len(asked) > MOST_SERVICES:
        left = _few([one.key for one in asked[MOST_SERVICES:]])
        notes.append(f"of {len(asked)} Services the first {MOST_SERVICES} are taken, others by --service: {left}")
    return asked[:MOST_SERVICES]


def _named(every: Sequence[Service], asked: Sequence[Service], name: str) -> Service:
    found = [one for one in every if name in (one.key, one.metadata.name)]
    if not found:
        known = [one.key if "/" in name else one.metadata.name for one in every]
        raise ServiceError(f"there is no Service {name}", cure=nearest(name, known))
    if len(found) > 1:
        raise ServiceError(f"several Services are named {name}", cure=f"one of: {_few([one.key for one in found])}")
    if found[0] not in asked:
        why = "is for another proxy" if _OTHERS in found[0].metadata.labels else "has no cluster IP"
        raise ServiceError(f"{found[0].key} {why}: kube-proxy does nothing for it", cure="take another")
    return found[0]


def _is_served(service: Service) -> bool:
    """Return whether kube-proxy serves it (``pkg/proxy/util/utils.go``, and the selector of its own watch)."""
    addresses = service.spec.all_cluster_ips
    return any(ip not in ("", "None") for ip in addresses) and _OTHERS not in service.metadata.labels


def _few(words: Sequence[str]) -> str:
    return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")


def _named_nodes(cluster: Cluster) -> list[str]:
    """Return the names of all nodes that objects speak of."""
    of_slices = (end.node_name for one in cluster.slices for end in one.value.endpoints)
    of_endpoints = (
        end.node_name
        for one in cluster.endpoints
        for subset in one.value.subsets
        for end in (*subset.addresses, *subset.not_ready)
    )
    of_pods = (one.value.spec.node_name for one in cluster.pods)
    nodes = (one.value.metadata.name for one in cluster.nodes)
    return list(dict.fromkeys(name for some in (nodes, of_slices, of_endpoints, of_pods) for name in some if name))


# --- the topology -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seat:
    """Where a pod is: on which node by the objects' name of it, and with which addresses."""

    node: str
    addresses: tuple[IPAddress, ...]


class _Maker:
    """Makes the topology of what is behind the chosen Services."""

    def __init__(self, cluster: Cluster, backings: Sequence[Backing], notes: list[str]) -> None:
        self._cluster, self._backings, self._notes = cluster, backings, notes
        self._services = [_trimmed(one.service) for one in backings]
        vips = [ip_address(ip) for one in self._services for ip in one.spec.all_cluster_ips if ip != "None"]
        self._families = [family for family in Family if any(Family.of(one) is family for one in vips)]
        self._outer = list(dict.fromkeys(self._outer_addresses()))
        self._seats = self._known_seats()
        every = [address for seat in self._seats.values() for address in seat.addresses]
        of_nodes = [ip_address(ip) for one in cluster.nodes for ip in one.value.internal_ips]
        self._of_nodes = set(of_nodes)
        self._turns = itertools.count()
        self._space = Space([*vips, *self._outer, *every, *of_nodes])

    def _outer_addresses(self) -> Iterator[IPAddress]:
        for one in self._services:
            ingress = [entry.ip for entry in one.status.load_balancer.ingress if entry.ip]
            for ip in (*ingress, *one.spec.external_ips):
                if Family.of(ip_address(ip)) in self._families:
                    yield ip_address(ip)

    def _known_seats(self) -> dict[Pod, _Seat]:
        """Return where the pods are that have an address, as far as the objects say it."""
        seats: dict[Pod, _Seat] = {}
        by_pod = {ip: one.value for one in self._cluster.pods for ip in one.value.addresses}
        for piece in (piece for one in self._backings for piece in one.slices if piece.address_type != "FQDN"):
            for endpoint in piece.endpoints:
                node = endpoint.node_name or ""
                pod = by_pod.get(endpoint.addresses[0])
                node = node or (pod.spec.node_name if pod else "")
                self._seat(seats, _pod_of(endpoint), node, map(ip_address, endpoint.addresses))
        for replica in (replica for one in self._backings for replica in one.replicas):
            key = (replica.namespace, replica.name)
            self._seat(seats, key, replica.node, map(ip_address, replica.addresses))
        if len(seats) > MOST_ENDPOINTS:
            kept = list(seats)[:MOST_ENDPOINTS]
            self._notes.append(f"of {len(seats)} endpoints the first {MOST_ENDPOINTS} are built, and the rest left out")
            return {key: seats[key] for key in kept}
        return seats

    def _seat(self, seats: dict[Pod, _Seat], key: Pod, node: str, addresses: Iterable[IPAddress]) -> None:
        """Seat a pod; an address that another pod has already is that one's."""
        own = tuple(one for one in addresses if Family.of(one) in self._families)
        theirs = {address for name, seat in seats.items() if name != key for address in seat.addresses}
        before = seats.get(key, _Seat(node, ()))
        both = dict.fromkeys((*before.addresses, *(one for one in own if one not in theirs)))
        if both or not own:
            seats[key] = _Seat(before.node or node, tuple(both))

    # --- what becomes of it -----------------------------------------------------------------------------

    def made(self, named: Sequence[str], sources: Sequence[str]) -> Made:
        """Return the topology."""
        busy = [seat.node for seat in self._seats.values() if seat.node]
        nodes = members(self._cluster, named, busy, self._notes)
        self._hosts = {one.called: one.name for one in nodes}
        self._leave_out([key for key, seat in self._seats.items() if seat.node and seat.node not in self._hosts])
        layout = Layout(self._families, self._space, nodes)
        layout.join_nodes()
        layout.join_outside()
        places = {key: self._place(key, seat, nodes) for key, seat in self._seats.items()}
        pods: dict[str, list[IPAddress]] = {}
        for key, place in places.items():
            pods.setdefault(place, []).extend(self._seats[key].addresses)
        layout.members = nodes = list(with_cidrs(nodes, self._families, pods, self._space))
        self._give_addresses(places, nodes)
        names = self._add_pods(layout, places, nodes)
        if layout.given:
            self._notes.append(f"the nodes' addresses are the lab's: {_few(layout.given)}")
        layout.lead_to_pods()
        outer = [one for one in self._outer if one not in self._of_nodes]
        layout.lead_to(outer, nodes[0].name)
        if outer and len(nodes) > 1:
            self._notes.append(f"what is for a load balancer or an external IP, the router leads to {nodes[0].name}")
        return Made(self._topology(layout, names, places, sources), tuple(self._notes))

    def _leave_out(self, keys: Sequence[Pod]) -> None:
        for key in keys:
            del self._seats[key]
        if keys:
            self._notes.append(f"left out with their nodes: {_few([name for _, name in keys])}")

    def _place(self, key: Pod, seat: _Seat, nodes: Sequence[Member]) -> str:
        """Return the host that a pod is behind: its node, or the router where it is no pod of any.

        One that has a node's own address is that node, and no object needs to say so.
        """
        if seat.node:
            return self._hosts[seat.node]
        for node in nodes:
            if {*seat.addresses} & {*node.addresses.values()}:
                return node.name
        for node in nodes:
            if any(_within(address, cidr) for address in seat.addresses for cidr in node.cidrs.values()):
                return node.name
        if not seat.addresses:
            return nodes[next(self._turns) % len(nodes)].name
        if any(node.cidrs for node in nodes):
            self._notes.append(f"{key[1]} is in no Node's podCIDR and on no node: it is behind the router")
            return ROUTER
        if not set(seat.addresses) & self._of_nodes:
            self._notes.append(f"{key[1]} is behind {nodes[0].name}, as nobody says where it is")
        return nodes[0].name

    def _give_addresses(self, places: dict[Pod, str], nodes: Sequence[Member]) -> None:
        by_name = {one.name: one for one in nodes}
        given = []
        on_node = {
            (one.namespace, one.name) for back in self._backings for one in back.replicas if one.spec.host_network
        }
        for key, seat in list(self._seats.items()):
            if seat.addresses:
                continue
            node = by_name[places[key]]
            if key in on_node:
                own = tuple(node.addresses[family] for family in self._families if family in node.addresses)
                if not own:
                    raise InputError(f"the pod {key[1]} has its node's network", cure="give Nodes with InternalIPs")
            else:
                own = tuple(self._space.pod_address(node.cidrs[family]) for family in self._families)
                given.append(f"{key[1]} {' and '.join(map(str, own))}")
            self._seats[key] = replace(seat, addresses=own)
        if given:
            self._notes.append(f"pods without an address are given one: {_few(given)}")

    def _add_pods(self, layout: Layout, places: dict[Pod, str], nodes: Sequence[Member]) -> list[str]:
        """Add a client on each node, and each pod; return their hosts."""
        names = [(f"client-{one.name}"[:63].strip("-") if len(nodes) > 1 else "client") for one in nodes]
        taken = {*names, ROUTER, OUTSIDE, *(one.name for one in nodes)}
        clients = [[self._space.pod_address(one.cidrs[family]) for family in self._families] for one in nodes]
        own = {address for some in layout.own.values() for address in some.values()}
        pods: list[str] = []
        for name, node, addresses in zip(names, nodes, clients, strict=True):
            layout.add_host(name, node.name, addresses)
        for number, (key, seat) in enumerate(self._seats.items(), 1):
            addresses = [one for one in seat.addresses if one not in own]
            if addresses:
                name = host_name(key[1]) if key[0] else f"endpoint-{number}"
                if name in taken:
                    name = f"endpoint-{number}"
                taken.add(name)
                pods.append(name)
                layout.add_host(name, places[key], addresses)
        return [*names, *pods]

    # --- objects ----------------------------------------------------------------------------------------

    def _topology(
        self, layout: Layout, names: Sequence[str], places: dict[Pod, str], sources: Sequence[str]
    ) -> Topology:
        of = f" of {', '.join(sources)}" if sources else ""
        try:
            return Topology(
                name=_NAME,
                hosts=tuple(layout.hosts(names, self._clusters(layout, places))),
                links=tuple(layout.links),
                services=tuple(self._services),
                endpoint_slices=tuple(self._slices(places)),
                description=f"Made of the objects{of}.",
            )
        except TopologyError as error:
            message = f"no topology can be made of these objects: {error.message}"
            raise InputError(message, cure="mend what it names, or write a topology") from None

    def _clusters(self, layout: Layout, places: Mapping[Pod, str]) -> list[IPNetwork]:
        """Return the ranges of the cluster's pods, as kube-proxy's --cluster-cidr has them."""
        cidrs = [cidr for one in layout.members for cidr in one.cidrs.values()]
        pods = [one for key, seat in self._seats.items() if places[key] != ROUTER for one in seat.addresses]
        inner = [one for one in pods if one not in self._of_nodes]
        others = [address for some in layout.own.values() for address in some.values()]
        found = []
        for family in self._families:
            whole = cover(family, [*cidrs, *inner])
            if whole is None or any(_within(one, whole) for one in (*others, *self._outer)):
                self._notes.append(f"no --cluster-cidr of {family} is given: nodes have addresses among the pods'")
            else:
                found.append(whole)
        return found

    def _slices(self, places: dict[Pod, str]) -> Iterator[EndpointSlice]:
        addresses = {key: seat.addresses for key, seat in self._seats.items()}
        for one in self._backings:
            for piece in one.slices:
                if piece.address_type != "FQDN":
                    yield self._built(piece)
            yield from slices_of(one, self._families, addresses, places)

    def _built(self, piece: EndpointSlice) -> EndpointSlice:
        """Return a slice with the endpoints that are built, on the hosts' names."""
        there = {str(address) for seat in self._seats.values() for address in seat.addresses}
        endpoints = []
        for endpoint in piece.endpoints:
            if all(address in there for address in endpoint.addresses):
                changed: dict[str, object] = {}
                if endpoint.node_name:
                    changed["node_name"] = self._hosts.get(endpoint.node_name, endpoint.node_name)
                endpoints.append(endpoint.model_copy(update=changed) if changed else endpoint)
        return piece.model_copy(update={"endpoints": tuple(endpoints)})


def _pod_of(endpoint: Endpoint) -> Pod:
    reference = endpoint.target_ref or {}
    if reference.get("kind") == "Pod" and reference.get("name"):
        return str(reference.get("namespace") or "default"), str(reference["name"])
    return "", endpoint.addresses[0]


def _trimmed(service: Service) -> Service:
    """Return a Service without what kubectl keeps for itself."""
    if _NOISE not in service.metadata.annotations:
        return service
    annotations = {key: value for key, value in service.metadata.annotations.items() if key != _NOISE}
    metadata = service.metadata.model_copy(update={"annotations": annotations})
    return service.model_copy(update={"metadata": metadata})


def _within(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
