# SPDX-License-Identifier: MIT
"""A question to a Service as the node sees it that decides of it: whom it takes the client for, and which endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from lab.evidence.reach import Question, Target
from lab.kubeproxy import changes
from lab.kubeproxy.options import DetectLocalMode
from lab.topology.kube_proxy import proxy_options
from lab.topology.node_change import NodeChange
from lab.topology.routes import next_hop
from lab.topology.ways import way, way_out
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.changes.change import Change
    from lab.kubeproxy.options import ProxyOptions
    from lab.kubernetes.objects import Endpoint, EndpointSlice, Service, ServicePort
    from lab.topology.model import Host, Topology

_OTHER_PROXY: Final = "service.kubernetes.io/service-proxy-name"
_HEADLESS: Final = "service.kubernetes.io/headless"


class OpenError(Exception):
    """Nobody says what is to become of it."""


@dataclass(frozen=True)
class Standpoint:
    """One question, and the node that decides of it."""

    topology: Topology
    family: Family
    service: Service
    port: ServicePort
    asked: Question

    @property
    def address(self) -> str:
        """The address that is asked."""
        return self.asked.address.address

    @property
    def client(self) -> Host:
        """The host that asks."""
        return self.topology.host(self.asked.client)

    @cached_property
    def node(self) -> Host | None:
        """The node whose rules decide: the one whose own address is asked, else the first on the way."""
        address = self.asked.address.address
        if self.asked.target is Target.LOCALHOST:
            return self.client
        passed = way(self.topology, self.asked.client, address)
        if self.asked.target is Target.NODE_PORT:
            owner = self.topology.host_of(address)
            return owner if owner is not None and owner.name == passed[-1] else None
        return next((host for name in passed if (host := self.topology.host(name)).proxy_mode is not None), None)

    @cached_property
    def options(self) -> ProxyOptions:
        """The settings of the node's kube-proxy."""
        assert self.node is not None
        return proxy_options(self.topology, self.node, self.family, NodeChange())

    def has(self, change: Change) -> bool:
        """Return whether the node's kube-proxy has a change of a release."""
        return change in self.options.release

    @property
    def is_nftables(self) -> bool:
        """Whether it is in nftables mode."""
        return self.node is not None and self.node.proxy_mode is ProxyMode.NFTABLES

    @cached_property
    def who(self) -> str:
        """Whom the node takes the client for: itself, a pod of the cluster (or of its own), or somebody outside."""
        assert self.node is not None
        if self.asked.client == self.node.name:
            return "node"
        options, source = self.options, self.asked.source
        if options.pods_match is None or source is None:
            return "outside"
        if options.detect_local_mode in (DetectLocalMode.CLUSTER_CIDR, DetectLocalMode.NODE_CIDR):
            return "pod" if ip_address(source) in ip_network(options.pods_match[1]) else "outside"
        end = way_out(self.topology, self.node.name, source)
        name, wanted = (end.bridge or end.interface) if end else "", options.pods_match[1]
        return "pod" if name == wanted or (wanted.endswith("+") and name.startswith(wanted[:-1])) else "outside"

    # --- endpoints ----------------------------------------------------------------------------------

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints of the Service's port, of the family, whatever their state.

        :raises OpenError: slices say different things of one, and chance decides which counts.
        """
        found: dict[str, list[Endpoint]] = {}
        for piece in self.topology.endpoint_slices:
            its = piece.service_key == self.service.key and piece.address_type == self.family.kubernetes
            same = ((own.name, own.protocol) == (self.port.name, self.port.protocol) for own in piece.ports if own.port)
            if its and self._is_read(piece) and any(same):
                for endpoint in piece.endpoints:
                    found.setdefault(endpoint.addresses[0], []).append(endpoint)
        return tuple(map(self._counting, found.values()))

    def _is_read(self, piece: EndpointSlice) -> bool:
        """Check whether no label keeps a slice from kube-proxy (its informers, cmd/kube-proxy/app/server.go)."""
        labels = {_HEADLESS} if self.has(changes.SELECTORS_APART) else {_HEADLESS, _OTHER_PROXY}
        return not self.has(changes.SLICES) or labels.isdisjoint(piece.metadata.labels)

    def _counting(self, told: list[Endpoint]) -> Endpoint:
        """Return the word that counts of those that several slices have of one endpoint.

        An endpoint may be in several slices for a while, and they are one endpoint (the concept page of EndpointSlices,
        "Duplicate endpoints"). Up to v1.35 a word that calls it local counts before others
        (``addEndpoints``, pkg/proxy/endpointslicecache.go), from v1.36 on one that does not call it terminating
        (kubernetes #135593); with Endpoints, up to v1.18, one that calls it ready.
        """
        if self.has(changes.SERVING_SLICE_WINS):
            first = [one for one in told if not one.terminating]
        elif self.has(changes.SLICES):
            first = [one for one in told if one.node_name is not None and one.node_name == self.options.node_name]
        else:
            first = [one for one in told if one.ready and not one.terminating]
        left = first or told
        if any(one != left[0] for one in left):
            raise OpenError
        return left[0]

    @property
    def is_served(self) -> bool:
        """Whether no label leaves the Service to somebody else than kube-proxy."""
        labels = {_OTHER_PROXY} if self.has(changes.SELECTORS_APART) else {_OTHER_PROXY, _HEADLESS}
        return labels.isdisjoint(self.service.metadata.labels)

    def usable(self, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Ready ones, or where there are none from v1.26 on those that terminate and still serve (KEP-1669)."""
        ready = tuple(one for one in endpoints if one.ready and (self.has(changes.SLICES) or not one.terminating))
        if ready or not self.has(changes.TERMINATING):
            return ready
        return tuple(one for one in endpoints if one.serving and one.terminating)

    @property
    def everywhere(self) -> tuple[Endpoint, ...]:
        """Those for the policy Cluster: all, or those that hints leave to this node (KEP-2433, KEP-4444)."""
        return self.usable(self._hinted())

    def _hinted(self) -> tuple[Endpoint, ...]:
        every, options = self.endpoints, self.options
        asked = [
            self.service.metadata.annotations.get(f"service.kubernetes.io/topology-{word}", "")
            for word in ("aware-hints", *(("mode",) if self.has(changes.TOPOLOGY_MODE) else ()))
        ]
        heeded = self.has(changes.HINTS_ALWAYS) or (
            self.has(changes.HINTS_ANNOTATED) and next(filter(None, asked), "") in {"Auto", "auto"}
        )
        ready = [one for one in every if one.ready]
        if not heeded or not ready:
            return every
        for kind, own in (("for_nodes", options.node_name), ("for_zones", options.node_zone)):
            if not own or (kind == "for_nodes" and not self.has(changes.HINTS_NODES)):
                continue
            meant = {one.addresses[0]: _names(one, kind) for one in every}
            names = [meant[one.addresses[0]] for one in ready]
            if all(names) and any(own in one for one in names):
                return tuple(one for one in every if own in meant[one.addresses[0]])
        return every

    @property
    def local(self) -> tuple[Endpoint, ...]:
        """Those for the policy Local: on the node itself."""
        name = self.options.node_name
        return self.usable(tuple(one for one in self.endpoints if one.node_name is not None and one.node_name == name))

    def sent_from(self, address: str) -> str | None:
        """Return the address that the client itself would send from."""
        if self.topology.host_of(address) == self.client:
            return address
        hop = next_hop(self.topology, self.asked.client, address)
        return str(hop.source) if hop else None

    @property
    def takes_localhost(self) -> bool:
        """Whether node ports are served by a loopback address."""
        return not self.is_nftables and self.family is Family.IPV4 and self.options.localhost_opened


def _names(endpoint: Endpoint, kind: str) -> set[str]:
    return {one.name for one in getattr(endpoint.hints, kind)} if endpoint.hints else set()
