# SPDX-License-Identifier: MIT
"""What stands beside Services and EndpointSlices in a cluster: Nodes, Pods, what makes Pods, and Endpoints.

Of each only what tells where an endpoint is, and which addresses there are, is read; the rest is left out.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from lab.kubernetes.fields import (
    FromList,
    Ip,
    KubernetesType,
    Label,
    OptionalPort,
    OrdinaryIp,
    Port,
    Protocol,
    Refusals,
)
from lab.kubernetes.objects import Metadata

_ZONES: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
_OVER: Final = ("Succeeded", "Failed")


def _cidr(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError("must be a CIDR such as 10.244.1.0/24, its address the range's first") from None


Cidr = Annotated[str, AfterValidator(_cidr)]


class _Part(KubernetesType):
    model_config = ConfigDict(extra="ignore")


class Owner(_Part):
    """Who made an object."""

    kind: str
    name: str


class OwnedMetadata(Metadata):
    """``metadata`` of what may be on its way out, or be made by something else."""

    deletion_timestamp: str | None = Field(default=None, alias="deletionTimestamp")
    owners: Annotated[tuple[Owner, ...], FromList] = Field(default=(), alias="ownerReferences")


# --- Nodes --------------------------------------------------------------------------------------------------


class NodeAddress(_Part):
    """An address of a node, of one of several kinds."""

    type: str
    address: str

    @model_validator(mode="after")
    def _check(self) -> Self:
        refusals = Refusals()
        if self.type == "InternalIP":
            try:
                ip_address(self.address)
            except ValueError:
                refusals.add(("address",), "must be an IP address", self.address)
        refusals.raise_any("NodeAddress")
        return self


class NodeSpec(_Part):
    """A node's ``spec``."""

    pod_cidr: Cidr | None = Field(default=None, alias="podCIDR")
    pod_cidrs: Annotated[tuple[Cidr, ...], FromList] = Field(default=(), alias="podCIDRs")


class NodeInfo(_Part):
    """What kubelet says of itself; from v1.33 on nothing is said of kube-proxy (KEP-4004)."""

    kube_proxy_version: str = Field(default="", alias="kubeProxyVersion")
    kubelet_version: str = Field(default="", alias="kubeletVersion")


class NodeStatus(_Part):
    """A node's ``status``."""

    addresses: Annotated[tuple[NodeAddress, ...], FromList] = ()
    node_info: NodeInfo = Field(default=NodeInfo(), alias="nodeInfo")


class Node(_Part):
    """A ``Node``."""

    kind: Literal["Node"]
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """Its InternalIPs."""
        return tuple(one.address for one in self.status.addresses if one.type == "InternalIP")

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """From which ranges its pods have their addresses."""
        return self.spec.pod_cidrs or ((self.spec.pod_cidr,) if self.spec.pod_cidr else ())

    @property
    def zone(self) -> str:
        """Its zone by its labels; empty where it has none."""
        return next((zone for key in _ZONES if (zone := self.metadata.labels.get(key))), "")

    @property
    def version(self) -> str:
        """Which release its kube-proxy is of, as far as it is said."""
        return self.status.node_info.kube_proxy_version or self.status.node_info.kubelet_version


# --- Pods ---------------------------------------------------------------------------------------------------


class ContainerPort(_Part):
    """A port of a container, which Services may name."""

    name: str = ""
    container_port: Port = Field(alias="containerPort")
    protocol: Protocol = "TCP"


class Container(_Part):
    """One container."""

    ports: Annotated[tuple[ContainerPort, ...], FromList] = ()


class PodSpec(_Part):
    """A pod's ``spec``."""

    node_name: str = Field(default="", alias="nodeName")
    host_network: bool = Field(default=False, alias="hostNetwork")
    containers: Annotated[tuple[Container, ...], FromList] = ()

    def number(self, name: str, protocol: str) -> int | None:
        """Return the port of a name; None where no container has it."""
        ports = (port for container in self.containers for port in container.ports)
        return next((port.container_port for port in ports if (port.name, port.protocol) == (name, protocol)), None)


class PodIp(_Part):
    """One of a pod's addresses."""

    ip: OrdinaryIp


class Condition(_Part):
    """One condition of a pod."""

    type: str
    status: str


class PodStatus(_Part):
    """A pod's ``status``."""

    phase: str = ""
    pod_ip: OrdinaryIp | None = Field(default=None, alias="podIP")
    pod_ips: Annotated[tuple[PodIp, ...], FromList] = Field(default=(), alias="podIPs")
    conditions: Annotated[tuple[Condition, ...], FromList] = ()


class Pod(_Part):
    """A ``Pod``."""

    kind: Literal["Pod"]
    metadata: OwnedMetadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses; none as long as it has not been given any."""
        return tuple(one.ip for one in self.status.pod_ips) or ((self.status.pod_ip,) if self.status.pod_ip else ())

    @property
    def is_over(self) -> bool:
        """Whether its containers have ended: then it is no endpoint."""
        return self.status.phase in _OVER

    @property
    def conditions(self) -> dict[str, bool]:
        """Its state as an EndpointSlice says it; of a pod without a status, that it is ready."""
        ready = next((one.status == "True" for one in self.status.conditions if one.type == "Ready"), True)
        leaving = self.metadata.deletion_timestamp is not None
        return {"ready": ready and not leaving, "serving": ready, "terminating": leaving}


class PodTemplate(_Part):
    """What pods are made by."""

    metadata: dict[str, Any] = Field(default={})
    spec: PodSpec = PodSpec()

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the pods."""
        return {str(key): str(value) for key, value in (self.metadata.get("labels") or {}).items()}


class WorkloadSpec(_Part):
    """A workload's ``spec``."""

    replicas: Annotated[int, Field(ge=0)] = 1
    template: PodTemplate


class Workload(_Part):
    """What makes pods: a ``Deployment`` or one of its kind."""

    kind: Literal["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"]
    metadata: OwnedMetadata
    spec: WorkloadSpec


# --- Endpoints ----------------------------------------------------------------------------------------------


class EndpointAddress(_Part):
    """One address of an ``Endpoints``."""

    ip: Ip
    node_name: str | None = Field(default=None, alias="nodeName")
    target_ref: dict[str, Any] | None = Field(default=None, alias="targetRef")


class EndpointsPort(_Part):
    """One port of an ``Endpoints``."""

    name: Label | Literal[""] = ""
    protocol: Protocol = "TCP"
    port: OptionalPort


class EndpointSubset(_Part):
    """Addresses that all have the same ports."""

    addresses: Annotated[tuple[EndpointAddress, ...], FromList] = ()
    not_ready: Annotated[tuple[EndpointAddress, ...], FromList] = Field(default=(), alias="notReadyAddresses")
    ports: Annotated[tuple[EndpointsPort, ...], FromList] = ()


class Endpoints(_Part):
    """An ``Endpoints`` of API version ``v1``, from which clusters before EndpointSlices have their endpoints."""

    kind: Literal["Endpoints"]
    metadata: Metadata
    subsets: Annotated[tuple[EndpointSubset, ...], FromList] = ()


Beside: TypeAlias = Node | Pod | Workload | Endpoints

#: The type of each kind.
BESIDE: Final[dict[str, type[Beside]]] = {
    "Node": Node,
    "Pod": Pod,
    "Endpoints": Endpoints,
    **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"), Workload),
}
