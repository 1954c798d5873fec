"""The objects that kube-proxy reads: ``Service`` (v1) and ``EndpointSlice`` (discovery.k8s.io/v1).

Attributes are snake_case, the documents keep Kubernetes' own camelCase. A field that is not known is left out, and
warned of. What the API server refuses is refused here as well, with the field's path as pydantic's ``loc`` (source of
the rules: kubernetes' ``pkg/apis/core/validation/validation.go`` and ``pkg/apis/discovery/validation/validation.go``).
Two things differ, because nothing allocates here: a cluster IP and the node ports of a ``NodePort`` service have to be
written down, as ``kubectl get -o yaml`` prints them.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from lab.errors import warn
from lab.kubernetes.errors import spell

Location = tuple[str | int, ...]
Parsed = TypeVar("Parsed", bound=BaseModel)

_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"  # RFC 1123 label
_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035 label
_PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")  # RFC 6335 section 5.1
_SPECIAL_IPV4 = {  # by leading bytes
    b"\0\0\0\0": "unspecified (0.0.0.0)",
    b"\x7f": "in the loopback range (127.0.0.0/8)",
    b"\xa9\xfe": "in the link-local range (169.254.0.0/16)",
    b"\xe0\0\0": "in the link-local multicast range (224.0.0.0/24)",
}
_SPECIAL_IPV6 = {
    ipaddress.IPv6Network("::/128"): "unspecified (::)",
    ipaddress.IPv6Network("::1/128"): "in the loopback range (::1/128)",
    ipaddress.IPv6Network("fe80::/10"): "in the link-local range (fe80::/10)",
    ipaddress.IPv6Network("ff02::/16"): "in the link-local multicast range (ff02::/16)",
}

MAX_ENDPOINTS = 1000
"""Endpoints that one EndpointSlice may hold (``pkg/apis/discovery/validation``)."""

DEFAULT_AFFINITY_SECONDS = 10800
"""How long ``sessionAffinity: ClientIP`` lasts where no timeout is given (3 hours)."""


def _ipv4_bytes(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET, text)  # ten times as fast as ipaddress, and as strict
    except (OSError, ValueError):
        return None


def _normal_ip(text: str) -> str:
    if _ipv4_bytes(text):
        return text
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("must be an IP address") from None
    if address.scope_id or address.ipv4_mapped:
        raise ValueError("must be an IP address without a zone, and IPv4 as IPv4")
    return str(address)


def _ordinary_ip(text: str) -> str:
    packed = _ipv4_bytes(text)
    normal = text if packed else _normal_ip(text)
    if packed:
        reason = next((why for start, why in _SPECIAL_IPV4.items() if packed.startswith(start)), None)
    else:
        address = ipaddress.IPv6Address(normal)
        reason = next((why for network, why in _SPECIAL_IPV6.items() if address in network), None)
    if reason:
        raise ValueError(f"may not be {reason}")
    return normal


def _normal_cidr(text: str) -> str:
    try:
        address, length = text.strip().split("/")
        if not length.isdecimal():
            raise ValueError
        return str(ipaddress.ip_network((_normal_ip(address), int(length)), strict=False))
    except ValueError:
        raise ValueError("must be a CIDR such as 10.0.0.0/8 or fd00::/64") from None


def _source_range(text: str) -> str:
    """Keep a blank before a CIDR, which the API server lets pass, and on which some kube-proxies end."""
    return f"{' ' * text.startswith(' ')}{_normal_cidr(text)}"


def _cluster_ip(text: str) -> str:
    return text if text in {"", "None"} else _normal_ip(text)


def _target_port(value: int | str) -> int | str:
    if isinstance(value, str):
        if not _PORT_NAME.fullmatch(value):
            raise ValueError("must be a port number, or a name of a-z, 0-9 and '-', at most 15, with a letter")
    elif not 1 <= value <= 65535:
        raise ValueError("must be between 1 and 65535")
    return value


def is_ipv6(address: str) -> bool:
    """Say whether an address or CIDR that passed these models is an IPv6 one."""
    return ":" in address


Label = Annotated[str, StringConstraints(pattern=_LABEL, max_length=63)]
Subdomain = Annotated[str, StringConstraints(pattern=_SUBDOMAIN, max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]
OptionalPort = Annotated[int, Field(ge=0, le=65535)]
Ip = Annotated[str, AfterValidator(_normal_ip)]
OrdinaryIp = Annotated[str, AfterValidator(_ordinary_ip)]
ClusterIp = Annotated[str, AfterValidator(_cluster_ip)]
SourceRange = Annotated[str, AfterValidator(_source_range)]
TargetPort = Annotated[int | str, AfterValidator(_target_port)]
Protocol = Literal["TCP", "UDP", "SCTP"]
IpFamily = Literal["IPv4", "IPv6"]
TrafficPolicy = Literal["Cluster", "Local"]
FromList = Strict(strict=False)  # a sequence comes as a list from YAML; its items stay strict


class _Object(BaseModel):
    """Base: frozen, strict as the API server's decoder; :func:`parse_objects` leaves unknown fields out."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Refusals:
    """Collects what is wrong between fields, each with the path of the field to mend."""

    def __init__(self) -> None:
        self._found: list[InitErrorDetails] = []

    def add(self, location: Location, message: str, value: object = None) -> None:
        error = PydanticCustomError("refused", "{message}", {"message": message})
        self._found.append(InitErrorDetails(type=error, loc=location, input=value))

    def raise_any(self, title: str) -> None:
        if self._found:
            raise ValidationError.from_exception_data(title, self._found)


class Metadata(_Object):
    """What is used of ``metadata``; whatever else stands there (uid, managedFields, ...) is left out."""

    model_config = ConfigDict(extra="ignore")

    name: Subdomain
    namespace: Label = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ServicePort(_Object):
    """One port of a service. ``node_port`` 0 means none, as in Kubernetes."""

    name: Label | Literal[""] = ""
    protocol: Protocol = "TCP"
    port: Port
    target_port: TargetPort | None = Field(default=None, alias="targetPort")
    node_port: OptionalPort = Field(default=0, alias="nodePort")
    app_protocol: str | None = Field(default=None, alias="appProtocol")


class ClientIpConfig(_Object):
    """How long a client sticks to its endpoint, in seconds."""

    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=DEFAULT_AFFINITY_SECONDS, alias="timeoutSeconds"
    )


class SessionAffinityConfig(_Object):
    """The settings of session affinity."""

    client_ip: ClientIpConfig = Field(default=ClientIpConfig(), alias="clientIP")


class ServiceSpec(_Object):
    """A service's ``spec``: every field of the v1 API by its name."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: ClusterIp = Field(default="", alias="clusterIP")
    cluster_ips: Annotated[tuple[ClusterIp, ...], FromList, Field(max_length=2)] = Field(default=(), alias="clusterIPs")
    ip_families: Annotated[tuple[IpFamily, ...], FromList, Field(max_length=2)] = Field(default=(), alias="ipFamilies")
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] | None = Field(
        default=None, alias="ipFamilyPolicy"
    )
    ports: Annotated[tuple[ServicePort, ...], FromList] = ()
    selector: dict[str, str] = {}
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
        refusals = _Refusals()
        self._check_cluster_ips(refusals)
        self._check_ports(refusals)
        self._check_policies(refusals)
        refusals.raise_any("ServiceSpec")
        return self

    def _check_cluster_ips(self, refusals: _Refusals) -> None:
        addresses = self.all_cluster_ips
        if self.type == "ExternalName":
            if addresses:
                refusals.add(("clusterIP",), "may not be set for type ExternalName", self.cluster_ip)
            if not re.fullmatch(_SUBDOMAIN[1:-1], self.external_name.removesuffix(".")):
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

    def _check_ports(self, refusals: _Refusals) -> None:
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

    def _check_policies(self, refusals: _Refusals) -> None:
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


class LoadBalancerIngress(_Object):
    """An address of a load balancer. ``ip_mode`` Proxy: its traffic does not come with this destination."""

    ip: Ip | None = None
    hostname: str | None = None
    ip_mode: Literal["VIP", "Proxy"] | None = Field(default=None, alias="ipMode")
    ports: Annotated[tuple[Any, ...], FromList] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ip_mode and not self.ip:
            refusals = _Refusals()
            refusals.add(("ipMode",), "may not be set without ip", self.ip_mode)
            refusals.raise_any("LoadBalancerIngress")
        return self


class LoadBalancerStatus(_Object):
    """What the load balancer's controller wrote down."""

    ingress: Annotated[tuple[LoadBalancerIngress, ...], FromList] = ()


class ServiceStatus(_Object):
    """A service's ``status``."""

    load_balancer: LoadBalancerStatus = Field(default=LoadBalancerStatus(), alias="loadBalancer")
    conditions: Annotated[tuple[Any, ...], FromList] = ()


class Service(_Object):
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
            refusals = _Refusals()
            text = "must be a DNS-1035 label: a-z, 0-9 and '-', beginning with a letter, at most 63"
            refusals.add(("metadata", "name"), text, name)
            refusals.raise_any("Service")
        return self


class EndpointConditions(_Object):
    """An endpoint's state; ``None`` means that nobody said: ready, serving, and not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


_CONDITIONS: dict[tuple[tuple[str, bool | None], ...], EndpointConditions] = {}


def _one_of_each(conditions: EndpointConditions) -> EndpointConditions:
    """Return the same object for the same conditions: a cluster's endpoints have few, and each takes half a KB."""
    return _CONDITIONS.setdefault(tuple(conditions.model_dump(exclude_unset=True).items()), conditions)


class HintTarget(_Object):
    """The zone or node that an endpoint is meant for."""

    name: str


class EndpointHints(_Object):
    """For whom an endpoint is meant."""

    for_zones: Annotated[tuple[HintTarget, ...], FromList] = Field(default=(), alias="forZones")
    for_nodes: Annotated[tuple[HintTarget, ...], FromList] = Field(default=(), alias="forNodes")


class Endpoint(_Object):
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


class EndpointPort(_Object):
    """A port that all endpoints of a slice have; ``port`` None means any, which kube-proxy leaves out."""

    name: Label | Literal[""] = ""
    protocol: Protocol = "TCP"
    port: Port | None = None
    app_protocol: str | None = Field(default=None, alias="appProtocol")


class EndpointSlice(_Object):
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
        refusals = _Refusals()
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

    def _check_address(self, address: str, path: Location, refusals: _Refusals) -> None:
        if self.address_type == "FQDN":
            if not re.fullmatch(_SUBDOMAIN[1:-1], address.removesuffix(".")):
                refusals.add(path, "must be a DNS name, as addressType is FQDN", address)
            return
        try:
            normal = _ordinary_ip(address)
        except ValueError as error:
            refusals.add(path, str(error), address)
            return
        if is_ipv6(normal) != (self.address_type == "IPv6"):
            refusals.add(path, f"must be an {self.address_type} address, as addressType says", address)
        elif normal != address:
            refusals.add(path, f"must be in its usual form, {normal}", address)


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - anything may stand in a file
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


Unknown = Callable[[Location], None]
"""Called with the path of each field that is not known."""


def _warned(path: Location) -> None:
    warn(f"{spell(path)}: unknown field, left out")


def _validated(model: type[Parsed], document: Any, unknown: Unknown) -> Parsed:  # noqa: ANN401
    """Validate a document without its unknown fields. Only one that does not pass is looked at twice: most have none.

    kubectl prints ``endpoints: null`` for an empty slice; as in Kubernetes, null is the same as nothing.
    """
    try:
        return model.model_validate(document)
    except ValidationError:
        document = _without_nulls(document)
    try:
        return model.model_validate(document)
    except ValidationError as invalid:
        paths = [error["loc"] for error in invalid.errors(include_url=False) if error["type"] == "extra_forbidden"]
        if not paths:
            raise
    for path in paths:
        unknown(path)
        place = document
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
    return model.model_validate(document)


def _parse(document: Any, unknown: Unknown = _warned) -> Service | EndpointSlice:  # noqa: ANN401
    models: dict[object, type[Service | EndpointSlice]] = {"Service": Service, "EndpointSlice": EndpointSlice}
    refusals = _Refusals()
    if not isinstance(document, dict):
        refusals.add((), "must be a Kubernetes object (a mapping)", document)
    elif not isinstance(kind := document.get("kind"), str) or kind not in models:
        refusals.add(("kind",), "must be Service or EndpointSlice", kind)
    refusals.raise_any("Kubernetes object")
    return _validated(models[document["kind"]], document, unknown)


def _parse_item(document: Any, _: ValidatorFunctionWrapHandler) -> Service | EndpointSlice:  # noqa: ANN401
    return _parse(document)


KubernetesObject = Annotated[Service | EndpointSlice, WrapValidator(_parse_item)]
"""Type of a field that holds either object, chosen by ``kind``; errors keep the plain path of the field."""


class ObjectList(_Object):
    """``kind: List``, as ``kubectl get services,endpointslices -o yaml`` prints."""

    api_version: Literal["v1"] = Field(alias="apiVersion")
    kind: Literal["List"]
    metadata: dict[str, Any] = {}
    items: Annotated[tuple[KubernetesObject, ...], FromList] = ()


def parse_objects(document: Any, unknown: Unknown = _warned) -> tuple[Service | EndpointSlice, ...]:  # noqa: ANN401
    """Validate one document: a Service, an EndpointSlice, or a List of them.

    :param unknown: what is done about an unknown field, which is left out.
    :raises pydantic.ValidationError: for each thing wrong, with the path of the field as ``loc``.
    """
    if isinstance(document, dict) and document.get("kind") == "List":
        return _validated(ObjectList, document, unknown).items
    return (_parse(document, unknown),)
