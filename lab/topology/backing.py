# SPDX-License-Identifier: MIT
"""The endpoints of a Service, by the objects that there are: EndpointSlices, else Endpoints, else Pods by their labels.

Where there are none of these, what makes Pods (a Deployment and its kind) stands for the Pods that it would make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from lab.kubernetes.objects import EndpointSlice
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubernetes.cluster import Endpoints, PodSpec
    from lab.kubernetes.objects import Metadata, Service, ServicePort
    from lab.topology.cluster import Cluster
    from lab.topology.values import IPAddress


@dataclass(frozen=True)
class Replica:
    """A pod that serves, and that no EndpointSlice tells of.

    :param node: where it is; empty where nobody says.
    :param addresses: empty where the lab gives them.
    """

    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]
    spec: PodSpec
    conditions: Mapping[str, bool]


@dataclass(frozen=True)
class Backing:
    """What is behind a Service.

    :param said: in a sentence, what the lab has made of what; empty where there are EndpointSlices.
    """

    service: Service
    slices: tuple[EndpointSlice, ...] = ()
    replicas: tuple[Replica, ...] = ()
    said: str = ""


def backing(cluster: Cluster, service: Service, nodes: Sequence[str]) -> Backing:
    """Return what is behind a Service.

    :param nodes: of the cluster, on each of which a DaemonSet has a pod.
    """
    key = service.key
    if own := tuple(one.value for one in cluster.slices if one.value.service_key == key):
        return Backing(service, own)
    for found in cluster.endpoints:
        metadata = found.value.metadata
        if f"{metadata.namespace}/{metadata.name}" == key:
            said = f"the endpoints of {key} are those of its Endpoints: there is no EndpointSlice of it"
            return Backing(service, tuple(mirrored(found.value)), said=said)
    if not service.spec.selector:
        return Backing(service, said=f"{key} has no endpoint: no EndpointSlice, no Endpoints, and no selector")
    if pods := tuple(_pods(cluster, service)):
        return Backing(service, replicas=pods, said=f"the endpoints of {key} are the Pods that its selector selects")
    if made := tuple(_made(cluster, service, nodes)):
        return Backing(service, replicas=made, said=_told(key, made))
    selector = ", ".join(f"{name}={value}" for name, value in service.spec.selector.items())
    return Backing(service, said=f"{key} has no endpoint: its selector {selector} selects nothing that was given")


def _told(key: str, made: Sequence[Replica]) -> str:
    names = ", ".join(one.name for one in made[:4]) + (", ..." if len(made) > 4 else "")
    return f"the endpoints of {key} are {len(made)} pods of its selector's labels, made by the lab: {names}"


def slice_of(service: Metadata, family: Family, number: int, endpoints: list[dict[str, Any]], ports: Any) -> Any:  # noqa: ANN401
    """Return an EndpointSlice of a Service, as the cluster's controller would make it."""
    name, namespace = service.name, service.namespace
    return EndpointSlice.model_validate(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family}" + (f"-{number}" if number else ""),
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family.kubernetes,
            "endpoints": endpoints,
            "ports": ports,
        }
    )


def mirrored(given: Endpoints) -> Iterator[EndpointSlice]:
    """Yield the EndpointSlices that the cluster's mirroring controller makes of an Endpoints."""
    for number, subset in enumerate(given.subsets):
        for family in Family:
            its = [
                {"addresses": [one.ip], "conditions": {"ready": ready}}
                | ({"nodeName": one.node_name} if one.node_name else {})
                | ({"targetRef": one.target_ref} if one.target_ref else {})
                for ready, addresses in ((True, subset.addresses), (False, subset.not_ready))
                for one in addresses
                if Family.of(ip_address(one.ip)) is family
            ]
            ports = [{"name": one.name, "protocol": one.protocol, "port": one.port} for one in subset.ports if one.port]
            if its:
                yield slice_of(given.metadata, family, number, its, ports)


def _pods(cluster: Cluster, service: Service) -> Iterator[Replica]:
    for found in cluster.pods:
        pod = found.value
        own = pod.metadata.namespace == service.metadata.namespace
        if own and not pod.is_over and _selects(service, pod.metadata.labels):
            name = pod.metadata.name
            yield Replica(
                pod.metadata.namespace, name, pod.spec.node_name, pod.addresses, pod.spec, dict(pod.conditions)
            )


def _made(cluster: Cluster, service: Service, nodes: Sequence[str]) -> Iterator[Replica]:
    kinds = {one.value.kind for one in cluster.workloads}
    for found in cluster.workloads:
        one = found.value
        namespace, name, template = one.metadata.namespace, one.metadata.name, one.spec.template
        by_another = any(owner.kind in kinds for owner in one.metadata.owners)
        if namespace != service.metadata.namespace or by_another or not _selects(service, template.labels):
            continue
        places = list(nodes) if one.kind == "DaemonSet" else [template.spec.node_name] * one.spec.replicas
        for number, node in enumerate(places):
            yield Replica(namespace, f"{name}-{number}", node, (), template.spec, {"ready": True})


def _selects(service: Service, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in service.spec.selector.items())


def slices_of(
    one: Backing,
    families: Sequence[Family],
    addresses: Mapping[tuple[str, str], Sequence[IPAddress]],
    nodes: Mapping[tuple[str, str], str],
) -> Iterator[EndpointSlice]:
    """Yield the EndpointSlices of replicas: those whose containers have the same ports share one.

    :param addresses: of each replica, by its namespace and name; ``nodes`` likewise.
    """
    groups: dict[tuple[int, ...], list[Replica]] = {}
    for replica in one.replicas:
        groups.setdefault(tuple(_number(port, replica.spec) for port in one.service.spec.ports), []).append(replica)
    for number, (numbers, replicas) in enumerate(groups.items()):
        for family in families:
            its = [
                {
                    "addresses": [str(address)],
                    "conditions": dict(replica.conditions),
                    "nodeName": nodes[key],
                    "targetRef": {"kind": "Pod", "name": replica.name, "namespace": replica.namespace},
                }
                for replica in replicas
                if (key := (replica.namespace, replica.name)) in addresses
                for address in addresses[key]
                if Family.of(address) is family
            ]
            ports = [
                {"name": port.name, "protocol": port.protocol, "port": own}
                for port, own in zip(one.service.spec.ports, numbers, strict=True)
                if own
            ]
            if its:
                yield slice_of(one.service.metadata, family, number, its, ports)


def _number(port: ServicePort, spec: PodSpec) -> int:
    """Return on which port a pod serves a Service's port; 0 where it has no port of that name."""
    target = port.target_port or port.port
    return target if isinstance(target, int) else spec.number(target, port.protocol) or 0
