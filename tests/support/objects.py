"""Services and EndpointSlices as the API server has them, read by the reader of what users give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.kubernetes.objects import EndpointSlice, Service
from lab.kubernetes.parse import parse_objects
from lab.vocabulary import Family

ONE_PORT: Sequence[Mapping[str, Any]] = ({"port": 80},)


def service(
    name: str,
    *,
    namespace: str = "default",
    ports: Iterable[Mapping[str, Any]] = ONE_PORT,
    ingress: Iterable[Mapping[str, Any]] = (),
    **spec: Any,
) -> Service:
    """Return a Service.

    :param ingress: what its load balancer's status has.
    :param spec: fields of its spec besides the ports.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": list(ports), **spec},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }
    [made] = parse_objects(document)
    assert isinstance(made, Service)
    return made


def endpoint_slice(
    of: str,
    endpoints: Iterable[Mapping[str, Any]],
    family: Family,
    *,
    target: int,
    name: str | None = None,
    namespace: str = "default",
    ports: Iterable[Mapping[str, Any]] = ONE_PORT,
) -> EndpointSlice:
    """Return an EndpointSlice of a Service.

    :param endpoints: each with its fields.
    :param target: the endpoints' port, for each of the Service's ports.
    """
    document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or of,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4" if family is Family.IPV4 else "IPv6",
        "endpoints": list(endpoints),
        "ports": [
            {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": target} for port in ports
        ],
    }
    [made] = parse_objects(document)
    assert isinstance(made, EndpointSlice)
    return made
