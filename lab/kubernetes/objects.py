# SPDX-License-Identifier: MIT
"""The objects that kube-proxy reads: ``Service`` (v1) and ``EndpointSlice`` (discovery.k8s.io/v1).

Attributes are snake_case, the documents keep Kubernetes' own camelCase. A field that is not known is left out, and
warned of. What the API server refuses is refused here as well, with the field's path as pydantic's ``loc`` (source of
the rules: kubernetes' ``pkg/apis/core/validation/validation.go`` and ``pkg/apis/discovery/validation/validation.go``).
Two things differ, because nothing allocates here: a cluster IP and the node ports of a ``NodePort`` service have to be
written down, as ``kubectl get -o yaml`` prints them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from lab.kubernetes.fields import (
    SUBDOMAIN,
    ClusterIp,
    FromList,
    Ip,
    IpFamily,
    KubernetesType,
    Label,
    Location,
    OptionalPort,
    OrdinaryIp,
    Port,
    Protocol,
    Refusals,
    SourceRange,
    Subdomain,
    TargetPort,
    TrafficPolicy,
    is_ipv6,
    ordinary_ip,
)

_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035 label

MAX_ENDPOINTS = 1000
"""Endpoints that one EndpointSlice may hold (``pkg/apis/discovery/validation``)."""

DEFAULT_AFFINITY_SECONDS = 10800
"""How long ``sessionAffinity: ClientIP`` lasts where no timeout is given (3 hours)."""


class Metadata(KubernetesType):
    """What is used of ``metadata``; whatever else stands there (uid, managedFields, ...) is left out."""

    model_config = ConfigDict(extra="ignore")

    name: Subdomain
    namespace: Label = "default"
    labels: dict[str, str] = Field(default={})
    annotations: dict[str, str] = Field(default={})


class ServicePort(KubernetesType):
    """One port of a service. ``node_port`` 0 means none, as in Kubernetes."""

    name: Label | Literal[""] = ""
    protocol: Protocol = "TCP"
    port: Port
    target_port: TargetPort | None = Field(default=None, alias="targetPort")
    node_port: OptionalPort = Field(default=0, alias="nodePort")
    app_protocol: str | None = Field(default=None, alias="appProtocol")


class ClientIpConfig(KubernetesType):
    """How long a client sticks to its endpoint, in seconds."""

    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=DEFAULT_AFFINITY_SECONDS, alias="timeoutSeconds"
    )


class SessionAffinityConfig(KubernetesType):
    """The settings of session affinity."""

    client_ip: ClientIpConfig = Field(default=ClientIpConfig(), alias="clientIP")


class ServiceSpec(KubernetesType):
    """A service's ``spec``: every field of the v1 API by its name."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: ClusterIp = Field(default="", alias="clusterIP")
    cluster_ips: Annotated[tuple[ClusterIp, ...], FromList, Field(max_length=2)] = Field(default=(), alias="clusterIPs")
    ip_families: Annotated[tuple[IpFamily, ...], FromList, Field(max_length=2)] = Field(default=(), alias="ipFamilies")
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = Field(
        default=None, alias="ipFamilyPolicy"
    )
    ports: Annotated[tuple[ServicePort, ...], FromList] = ()
    selector: dict[str, str] = Field(default={})
    external_ips: Annotated[tuple[OrdinaryIp, ...], FromList] = Field(default=(), alias="externalIPs")
    external_name: str = Field(default="", alias="externalName")
    external_traffic_policy: TrafficPolicy | Literal[""] = Field(default="", alias="externalTrafficPolicy")
    internal_traffic_policy: TrafficPolicy = Field(default="Cluster", alias="internalTrafficPolicy")
    session_affinity: Literal["None", "ClientIP"] = Field(default="None", alias="sessionAffinity")
    session_affinity_config: SessionAffinityConfig | None = Field(default=None, alias="sessionAffinityConfig")
    load_balancer_ip: str = Field(default="", alias="loadBalancerIP")
    load_balancer_class: str | None = Field(default=None, alias="loadBalancerClass")
    load_balancer_source_ranges: Annotated[tuple[SourceRange, ...], FromList] = Field(
        default=(), alias="loadBalancerSourceRanges"
    )
    allocate_load_balancer_node_ports: bool | None = Field(default=None, alias="allocateLoadBalancerNodePorts")
    health_check_node_port: OptionalPort = Field(default=0, alias="healthCheckNodePort")
    publish_not_ready_addresses: bool = Field(default=False, alias="publishNotReadyAddresses")
    traffic_distribution: str | None = Field(default=None, alias="trafficDistribution")

    @property
    def all_cluster_ips(self) -> tuple[str, ...]:
        """The cluster IPs of every family; ``("None",)`` for a headless service."""
        return self.cluster_ips or ((self.cluster_ip,) if self.cluster_ip else ())

    @property
    def affinity_seconds(self) -> int:
        """Seconds that a client sticks to its endpoint; 0 without session affinity."""
        if self.session_affinity == "None":
            return 0
        config = self.session_affinity_config or SessionAffinityConfig()
        return config.client_ip.timeout_seconds

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = Refusals()
        self._check_cluster_ips(refusals)
        self._check_ports(refusals)
        self._check_policies(refusals)
        refusals.raise_any("ServiceSpec")
        return self

    def _check_cluster_ips(self, refusals: Refusals) -> None:
        addresses = self.all_cluster_ips
        if self.type == "ExternalName":
            if addresses:
                refusals.add(("clusterIP",), "may not be set for type ExternalName", self.cluster_ip)
            if not re.fullmatch(SUBDOMAIN[1:-1], self.external_name.removesuffix(".")):
                refusals.add(("externalName",), "must be a DNS name for type ExternalName", self.external_name)
            return
        if self.cluster_ips and self.cluster_ips[0] != self.cluster_ip:
            refusals.add(("clusterIPs", 0), "must be the same as clusterIP", self.cluster_ips[0])
        if not addresses:
            refusals.add(("clusterIP",), "must be written down (nothing allocates it here), or be None", "")
            return
        if self.type != "ClusterIP" and "None" in addresses:
            refusals.add(("clusterIP",), f"may not be None for type {self.type}", "None")
        if len(addresses) == 2:
            if "None" in addresses:
                refusals.add(("clusterIPs",), "None stands alone", addresses)
            elif is_ipv6(addresses[0]) == is_ipv6(addresses[1]):
                refusals.add(("clusterIPs", 1), "must be of the other IP family than the first", addresses[1])
        if len(set(self.ip_families)) < len(self.ip_families):
            refusals.add(("ipFamilies", 1), "duplicate family", self.ip_families[1])
        elif "None" not in addresses and len(addresses) < len(self.ip_families):
            refusals.add(("ipFamilies",), "has more families than there are cluster IPs", self.ip_families)
        for index, (address, family) in enumerate(zip(addresses, self.ip_families, strict=False)):
            if address not in {"", "None"} and is_ipv6(address) != (family == "IPv6"):
                path: Location = ("clusterIPs", index) if self.cluster_ips else ("clusterIP",)
                refusals.add(path, f"must be an {family} address, as ipFamilies[{index}] says", address)
        if "" in self.cluster_ips:
            refusals.add(("clusterIPs", self.cluster_ips.index("")), "must be an IP address or None", "")

    def _check_ports(self, refusals: Refusals) -> None:
        if not self.ports and self.type != "ExternalName" and self.all_cluster_ips != ("None",):
            refusals.add(("ports",), "needs at least one port", self.ports)
        names: set[str] = set()
        ports: set[tuple[str, int]] = set()
        node_ports: set[tuple[str, int]] = set()
        for index, port in enumerate(self.ports):
            path: Location = ("ports", index)
            if not port.name and len(self.ports) > 1:
                refusals.add((*path, "name"), "needs a name, as there are several ports", port.name)
            elif port.name in names:
                refusals.add((*path, "name"), f"duplicate name {port.name!r}", port.name)
            names.add(port.name)
            if (port.protocol, port.port) in ports:
                refusals.add((*path, "port"), f"duplicate port {port.port}/{port.protocol}", port.port)
            ports.add((port.protocol, port.port))
            if port.node_port:
                if self.type not in {"NodePort", "LoadBalancer"}:
                    refusals.add((*path, "nodePort"), f"may not be used for type {self.type}", port.node_port)
                elif (port.protocol, port.node_port) in node_ports:
                    text = f"duplicate node port {port.node_port}/{port.protocol}"
                    refusals.add((*path, "nodePort"), text, port.node_port)
                node_ports.add((port.protocol, port.node_port))
            elif self.type == "NodePort":
                text = "must be written down for type NodePort (nothing allocates it here)"
                refusals.add((*path, "nodePort"), text, port.node_port)

    def _check_policies(self, refusals: Refusals) -> None:
        balanced = self.type == "LoadBalancer"
        if self.external_traffic_policy and not (balanced or self.type == "NodePort" or self.external_ips):
            text = "may only be set for type NodePort or LoadBalancer, or with externalIPs"
            refusals.add(("externalTrafficPolicy",), text, self.external_traffic_policy)
        if self.session_affinity == "None" and self.session_affinity_config is not None:
            refusals.add(("sessionAffinityConfig",), "may not be set where sessionAffinity is None")
        if self.load_balancer_source_ranges and not balanced:
            text = "may only be used for type LoadBalancer"
            refusals.add(("loadBalancerSourceRanges",), text, self.load_balancer_source_ranges)
        if self.load_balancer_class is not None and not balanced:
            refusals.add(("loadBalancerClass",), "may only be used for type LoadBalancer", self.load_balancer_class)
        if self.allocate_load_balancer_node_ports is not None and not balanced:
            refusals.add(("allocateLoadBalancerNodePorts",), "may only be used for type LoadBalancer")
        if self.health_check_node_port and not (balanced and self.external_traffic_policy == "Local"):
            text = "may only be set for type LoadBalancer with externalTrafficPolicy Local"
            refusals.add(("healthCheckNodePort",), text, self.health_check_node_port)


class LoadBalancerIngress(KubernetesType):
    """An address of a load balancer. ``ip_mode`` Proxy: its traffic does not come with this destination."""

    ip: Ip | None = None
    hostname: str | None = None
    ip_mode: Literal["VIP", "Proxy"] | None = Field(default=None, alias="ipMode")
    ports: Annotated[tuple[Any, ...], FromList] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ip_mode and not self.ip:
            refusals = Refusals()
            refusals.add(("ipMode",), "may not be set without ip", self.ip_mode)
            refusals.raise_any("LoadBalancerIngress")
        return self


class LoadBalancerStatus(KubernetesType):
    """What the load balancer's controller wrote down."""

    ingress: Annotated[tuple[LoadBalancerIngress, ...], FromList] = ()


class ServiceStatus(KubernetesType):
    """A service's ``status``."""

    load_balancer: LoadBalancerStatus = Field(default=LoadBalancerStatus(), alias="loadBalancer")
    conditions: Annotated[tuple[Any, ...], FromList] = ()


class Service(KubernetesType):
    """A ``Service`` of API version ``v1``."""

    api_version: Literal["v1"] = Field(alias="apiVersion")
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        name = self.metadata.name
        if len(name) > 63 or not _SERVICE_NAME.fullmatch(name):
            refusals = Refusals()
            text = "must be a DNS-1035 label: a-z, 0-9 and '-', beginning with a letter, at most 63"
            refusals.add(("metadata", "name"), text, name)
            refusals.raise_any("Service")
        return self


class EndpointConditions(KubernetesType):
    """An endpoint's state; ``None`` means that nobody said: ready, serving, and not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


_CONDITIONS: dict[tuple[tuple[str, bool | None], ...], EndpointConditions] = {}


def _one_of_each(conditions: EndpointConditions) -> EndpointConditions:
    """Return the same object for the same conditions: a cluster's endpoints have few, and each takes half a KB."""
    return _CONDITIONS.setdefault(tuple(conditions.model_dump(exclude_unset=True).items()), conditions)


class HintTarget(KubernetesType):
    """The zone or node that an endpoint is meant for."""

    name: str


class EndpointHints(KubernetesType):
    """For whom an endpoint is meant."""

    for_zones: Annotated[tuple[HintTarget, ...], FromList] = Field(default=(), alias="forZones")
    for_nodes: Annotated[tuple[HintTarget, ...], FromList] = Field(default=(), alias="forNodes")


class Endpoint(KubernetesType):
    """One endpoint. Its addresses are all of the slice's type; kube-proxy uses the first."""

    addresses: Annotated[tuple[str, ...], FromList, Field(min_length=1, max_length=100)]
    conditions: Annotated[EndpointConditions, AfterValidator(_one_of_each)] = EndpointConditions()
    hostname: Label | None = None
    node_name: str | None = Field(default=None, alias="nodeName")
    zone: str | None = None
    target_ref: dict[str, Any] | None = Field(default=None, alias="targetRef")
    deprecated_topology: dict[str, str] | None = Field(default=None, alias="deprecatedTopology")
    hints: EndpointHints | None = None

    @property
    def ready(self) -> bool:
        """Whether new connections are meant to go to it."""
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        """Whether it answers."""
        return self.conditions.serving is not False

    @property
    def terminating(self) -> bool:
        """Whether it is on its way out."""
        return self.conditions.terminating is True


class EndpointPort(KubernetesType):
    """A port that all endpoints of a slice have; ``port`` None means any, which kube-proxy leaves out."""

    name: Label | Literal[""] = ""
    protocol: Protocol = "TCP"
    port: Port | None = None
    app_protocol: str | None = Field(default=None, alias="appProtocol")


class EndpointSlice(KubernetesType):
    """An ``EndpointSlice`` of API version ``discovery.k8s.io/v1``."""

    api_version: Literal["discovery.k8s.io/v1"] = Field(alias="apiVersion")
    kind: Literal["EndpointSlice"]
    metadata: Metadata
    address_type: Literal["IPv4", "IPv6", "FQDN"] = Field(alias="addressType")
    endpoints: Annotated[tuple[Endpoint, ...], FromList, Field(max_length=MAX_ENDPOINTS)] = ()
    ports: Annotated[tuple[EndpointPort, ...], FromList, Field(max_length=20000)] = ()

    @property
    def service_key(self) -> str | None:
        """``namespace/name`` of the service, by the label ``kubernetes.io/service-name``; None without it."""
        name = self.metadata.labels.get("kubernetes.io/service-name")
        return f"{self.metadata.namespace}/{name}" if name else None

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = Refusals()
        for index, endpoint in enumerate(self.endpoints):
            for number, address in enumerate(endpoint.addresses):
                path: Location = ("endpoints", index, "addresses", number)
                self._check_address(address, path, refusals)
        names: set[str] = set()
        for index, port in enumerate(self.ports):
            if port.name in names:
                refusals.add(("ports", index, "name"), f"duplicate name {port.name!r}", port.name)
            names.add(port.name)
        refusals.raise_any("EndpointSlice")
        return self

    def _check_address(self, address: str, path: Location, refusals: Refusals) -> None:
        if self.address_type == "FQDN":
            if not re.fullmatch(SUBDOMAIN[1:-1], address.removesuffix(".")):
                refusals.add(path, "must be a DNS name, as addressType is FQDN", address)
            return
        try:
            normal = ordinary_ip(address)
        except ValueError as error:
            refusals.add(path, str(error), address)
            return
        if is_ipv6(normal) != (self.address_type == "IPv6"):
            refusals.add(path, f"must be an {self.address_type} address, as addressType says", address)
        elif normal != address:
            refusals.add(path, f"must be in its usual form, {normal}", address)
