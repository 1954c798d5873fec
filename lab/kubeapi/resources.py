# SPDX-License-Identifier: MIT
"""What is served, by the paths under which each release of kube-proxy asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

#: An object as JSON has it.
Object: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of objects in one version of the API.

    :param group: of the API; empty for the core.
    :param view: makes of a stored object, which is of the newest version, what this version shows.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    view: Callable[[Object], Object] = lambda stored: stored

    @property
    def api_version(self) -> str:
        """As objects name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of the group's version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def shown(self, stored: Object) -> Object:
        """Return a stored object as this version shows it."""
        return {**self.view(stored), "apiVersion": self.api_version, "kind": self.kind}


def _as_beta(piece: Object) -> Object:
    """Return an EndpointSlice as v1beta1 has it: with topology's labels in place of zone (discovery/v1beta1/types.go).

    Node names had a field of their own there from v1.20 on, by gate; the label is what all releases read.
    """
    return {**piece, "endpoints": [_endpoint_as_beta(one) for one in piece.get("endpoints") or ()]}


def _endpoint_as_beta(endpoint: Object) -> Object:
    labels = dict(endpoint.get("deprecatedTopology") or {})
    if node := endpoint.get("nodeName"):
        labels["kubernetes.io/hostname"] = node
    if zone := endpoint.get("zone"):
        labels["topology.kubernetes.io/zone"] = zone
    kept = {key: value for key, value in endpoint.items() if key not in {"zone", "deprecatedTopology"}}
    return {**kept, "topology": labels} if labels else kept


RESOURCES: Final = (
    Resource("", "v1", "services", "Service", namespaced=True),
    Resource("", "v1", "endpoints", "Endpoints", namespaced=True),
    Resource("", "v1", "nodes", "Node", namespaced=False),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True),
    Resource("discovery.k8s.io", "v1beta1", "endpointslices", "EndpointSlice", namespaced=True, view=_as_beta),
    Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False),
    Resource("networking.k8s.io", "v1beta1", "servicecidrs", "ServiceCIDR", namespaced=False),
)

#: Where events are sent, which nobody reads: core up to v1.21, events.k8s.io from v1.22 on.
EVENTS: Final = ("/api/v1", "/apis/events.k8s.io/v1", "/apis/events.k8s.io/v1beta1")
