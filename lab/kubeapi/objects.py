# SPDX-License-Identifier: MIT
"""A topology's objects as an API server has them, for one of its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lab.kubeapi.resources import Object
from lab.topology.routes import node_address

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from lab.kubernetes.fields import KubernetesType
    from lab.kubernetes.objects import Endpoint, EndpointSlice, Service
    from lab.topology.model import Topology
    from lab.vocabulary import Family

_READY: Final[Object] = {
    "type": "Ready",
    "status": "True",
    "reason": "",
    "message": "",
    "lastTransitionTime": "1970-01-01T00:00:00Z",
}


def changing(services: Iterable[Service], slices: Sequence[EndpointSlice]) -> dict[str, list[Object]]:
    """Return what changes while a lab runs, by kind: Services, EndpointSlices, and the Endpoints of these."""
    return {
        "services": [_service(one) for one in services],
        "endpointslices": [_slice(one) for one in slices],
        "endpoints": endpoints(slices),
    }


def lasting(
    topology: Topology, families: Sequence[Family], service_cidrs: Sequence[IPv4Network | IPv6Network]
) -> dict[str, list[Object]]:
    """Return the others: nodes and ServiceCIDRs.

    :param families: of the addresses that the nodes have; the first is the one that they are known by.
    """
    nodes = []
    for host in topology.nodes:
        own = [address for family in families if (address := node_address(topology, host.name, family))]
        nodes.append(node(host.name, own, host.node_zone, host.node_pod_cidrs))
    return {"nodes": nodes, "servicecidrs": ranges(service_cidrs)}


def node(name: str, addresses: Iterable[object], zone: str | None, pod_cidrs: Iterable[object]) -> Object:
    """Return a node.

    :param addresses: its own ones, the first of which it is known by.
    :param pod_cidrs: the ranges of its pods.
    """
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    if zone:
        labels["topology.kubernetes.io/zone"] = zone
    pods = [str(cidr) for cidr in pod_cidrs]
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDR": pods[0], "podCIDRs": pods} if pods else {},
        "status": {
            "addresses": [
                *({"type": "InternalIP", "address": str(address)} for address in addresses),
                {"type": "Hostname", "address": name},
            ],
            "conditions": [_READY],
        },
    }


def ranges(service_cidrs: Iterable[object]) -> list[Object]:
    """Return a ServiceCIDR for each range."""
    return [
        {
            "metadata": {"name": f"lab-{number}" if number else "kubernetes"},
            "spec": {"cidrs": [str(cidr)]},
            "status": {"conditions": [_READY]},
        }
        for number, cidr in enumerate(service_cidrs)
    ]


def _dumped(one: KubernetesType) -> Object:
    """Return an object as it was written, with what was left out left out."""
    document: dict[str, Any] = one.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    document["metadata"] = {"namespace": "default", **document["metadata"]}
    return document


def _slice(piece: EndpointSlice) -> Object:
    """Return an EndpointSlice with the defaults that an API server would have written (pkg/apis/discovery/v1)."""
    document = dict(_dumped(piece))
    ports = [
        {**written, "name": port.name, "protocol": port.protocol}
        for port, written in zip(piece.ports, document.get("ports", ()), strict=True)
    ]
    return {**document, "endpoints": document.get("endpoints", []), "ports": ports}


def _service(service: Service) -> Object:
    """Return a Service with the defaults that an API server would have written (pkg/apis/core/v1/defaults.go)."""
    document = dict(_dumped(service))
    spec = service.spec
    written: dict[str, Any] = dict(document.get("spec", {}))
    ports = [
        {"targetPort": port.port, **one, "protocol": port.protocol}
        for port, one in zip(spec.ports, written.get("ports", ()), strict=True)
    ]
    addresses = list(spec.all_cluster_ips)
    defaults: dict[str, Any] = {
        "type": spec.type,
        "sessionAffinity": spec.session_affinity,
        "internalTrafficPolicy": spec.internal_traffic_policy,
    }
    if addresses:
        defaults |= {"clusterIP": addresses[0], "clusterIPs": addresses}
    if addresses and addresses != ["None"]:
        defaults["ipFamilies"] = ["IPv6" if ":" in address else "IPv4" for address in addresses]
    if spec.type in {"NodePort", "LoadBalancer"} or spec.external_ips:
        defaults["externalTrafficPolicy"] = "Cluster"
    if spec.session_affinity != "None":
        defaults["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": spec.affinity_seconds}}
    document["spec"] = {**defaults, **written, "ports": ports}
    return document


def endpoints(slices: Iterable[EndpointSlice]) -> list[Object]:
    """Return the Endpoints of slices, as kube-proxy up to v1.18 reads them: one family each, the first that there is.

    One that is not ready is among those that are not; what terminates is in none, as its pod has left them.
    """
    found: dict[str, list[EndpointSlice]] = {}
    for piece in slices:
        if piece.service_key is not None and piece.address_type != "FQDN":
            its = found.setdefault(piece.service_key, [])
            if not its or its[0].address_type == piece.address_type:
                its.append(piece)
    objects: list[Object] = []
    for key, pieces in found.items():
        namespace, _, name = key.partition("/")
        subsets = [subset for piece in pieces if (subset := _subset(piece))]
        objects.append({"metadata": {"namespace": namespace, "name": name}, "subsets": subsets})
    return objects


def _subset(piece: EndpointSlice) -> Mapping[str, Any]:
    ready = [_address(one) for one in piece.endpoints if one.ready]
    others = [_address(one) for one in piece.endpoints if not one.ready and not one.terminating]
    ports = [
        {"port": port.port, "protocol": port.protocol, **({"name": port.name} if port.name else {})}
        for port in piece.ports
        if port.port is not None
    ]
    addresses = {"addresses": ready} if ready else {}
    unready = {"notReadyAddresses": others} if others else {}
    return {**addresses, **unready, "ports": ports} if ready or others else {}


def _address(endpoint: Endpoint) -> Object:
    node = {"nodeName": endpoint.node_name} if endpoint.node_name else {}
    return {"ip": endpoint.addresses[0], **node}
