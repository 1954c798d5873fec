# SPDX-License-Identifier: MIT
"""A topology: hosts, the links between them, and the Kubernetes objects that its nodes serve.

The fields of :class:`Host`, :class:`Route` and :class:`End` carry their file names and descriptions, because
the topology file and its JSON Schema are made of these very classes. Made in Python instead::

    Topology(
        name="pair",
        hosts=(Host("a"), Host("b")),
        links=(Link((End("a", "eth0", (ip_interface("10.0.0.1/24"),)),
                     End("b", "eth0", (ip_interface("10.0.0.2/24"),)))),),
    )
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import FailFast, Field, PlainValidator, Strict, WithJsonSchema

from lab.kubeproxy.options import DetectLocalMode
from lab.kubeproxy.program import ProxyProgram
from lab.kubeproxy.settings import DEFAULT_VERSIONS, KEYS
from lab.topology.checks import check
from lab.topology.given import GivenRules
from lab.topology.keys import STRICT_KEYS, key, read_sysctls, reads
from lab.topology.names import INTERFACE, VERSION
from lab.topology.route_keys import ClosedRoute, PolicyRule, Route
from lab.topology.segments import Segments
from lab.topology.values import (
    TEXT,
    FileAddress,
    FileInterface,
    FileNetwork,
    IPAddress,
    IPNetwork,
)
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.kubernetes.objects import EndpointSlice, Service

_FLAG = WithJsonSchema({"type": "boolean"})
_NAME = WithJsonSchema(TEXT)


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """What a host does besides having links. Nothing: a pod."""

    __pydantic_config__ = STRICT_KEYS

    routes: Annotated[tuple[Route, ...], FailFast(), Field(description="Routes besides those to its own subnets.")] = ()
    closed_routes: Annotated[
        tuple[ClosedRoute, ...],
        FailFast(),
        Field(alias="closed-routes", description="Where it sends nothing: blackholes, unreachable and prohibited."),
    ] = ()
    rules: Annotated[
        tuple[PolicyRule, ...],
        FailFast(),
        Field(description="Which packets go by which other table of its routes: the first that fits and leads on."),
    ] = ()
    forwarding: Annotated[
        bool,
        Strict(),
        Field(description="Whether it forwards packets of both families, as nodes and routers do."),
    ] = False
    sysctls: Annotated[
        tuple[tuple[str, str], ...],
        PlainValidator(read_sysctls),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "integer"]}}),
        Field(description="Sysctls of its namespace, such as net.ipv4.conf.all.rp_filter: set when all else is there."),
    ] = ()
    hairpin: Annotated[
        bool, Strict(), Field(description="Whether its bridges send a frame back by the port that it came by.")
    ] = False
    promiscuous: Annotated[
        bool, Strict(), Field(description="Whether its bridges hand it every frame, also those for others.")
    ] = False
    bridge_nf_call_iptables: Annotated[
        bool | None,
        Strict(),
        Field(
            alias="bridge-nf-call-iptables",
            description="Whether its rules see what its bridges pass on: br_netfilter, which kube-proxy wants."
            " Left out: those of a node do.",
        ),
    ] = None
    proxy_mode: Annotated[
        ProxyMode | None,
        Field(alias="proxy-mode", description="Makes it a node with kube-proxy's rules of this mode."),
    ] = None
    proxy_version: Annotated[
        str | None,
        Field(
            alias="proxy-version",
            description="Which kube-proxy's rules, such as v1.33 or v1.33.6-gke.1. Left out:"
            f" {' and '.join(f'{version} in {mode} mode' for mode, version in DEFAULT_VERSIONS.items())}.",
            json_schema_extra={"pattern": VERSION},
        ),
    ] = None
    backend: Backend = Backend.NFT
    cluster_cidrs: Annotated[tuple[FileNetwork, ...], key("cluster_cidrs")] = ()
    node_ips: Annotated[
        tuple[FileAddress, ...],
        FailFast(),
        Field(
            alias="node-ips",
            description="The node's own addresses, one a family: kubelet's --node-ip. Left out: the default route's.",
        ),
    ] = ()
    masquerade_all: Annotated[bool, Strict(), key("masquerade_all")] = False
    detect_local_mode: Annotated[DetectLocalMode | None, key("detect_local_mode")] = None
    pod_bridge_interface: Annotated[str, reads("pod_bridge_interface"), _NAME, key("pod_bridge_interface")] = ""
    pod_interface_name_prefix: Annotated[
        str, reads("pod_interface_name_prefix"), _NAME, key("pod_interface_name_prefix")
    ] = ""
    node_port_addresses: Annotated[
        tuple[str, ...],
        reads("node_port_addresses"),
        WithJsonSchema({"type": "array", "items": TEXT}),
        key("node_port_addresses"),
    ] = ()
    localhost_node_ports: Annotated[bool | None, reads("localhost_node_ports"), _FLAG, key("localhost_node_ports")] = (
        None
    )
    masquerade_bit: Annotated[
        int | None,
        reads("masquerade_bit"),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 31}),
        key("masquerade_bit"),
    ] = None
    conntrack_tcp_be_liberal: Annotated[
        bool | None, reads("conntrack_tcp_be_liberal"), _FLAG, key("conntrack_tcp_be_liberal")
    ] = None
    conntrack_tcp_timeout_established: Annotated[
        str, reads("conntrack_tcp_timeout_established"), _NAME, key("conntrack_tcp_timeout_established")
    ] = ""
    conntrack_tcp_timeout_close_wait: Annotated[
        str, reads("conntrack_tcp_timeout_close_wait"), _NAME, key("conntrack_tcp_timeout_close_wait")
    ] = ""
    feature_gates: Annotated[
        tuple[tuple[str, bool], ...],
        reads("feature_gates"),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "boolean"}}),
        key("feature_gates"),
    ] = ()
    node_zone: Annotated[str, reads("node_zone"), _NAME, key("node_zone")] = ""
    node_pod_cidrs: Annotated[tuple[FileNetwork, ...], key("node_pod_cidrs")] = ()

    @property
    def main_routes(self) -> tuple[Route, ...]:
        """Those of its main table, which decide where no rule of its own does."""
        return tuple(route for route in self.routes if route.table is None)

    @property
    def settings(self) -> dict[str, Any]:
        """What is said of its kube-proxy, by the fields of :data:`lab.kubeproxy.settings.KEYS`."""
        values = {field: getattr(self, field) for field in KEYS}
        return {field: value for field, value in values.items() if value != getattr(HostOptions, field)}


@dataclass(frozen=True)
class Host(HostOptions):
    """One network namespace of a lab: client pod, node, server pod, router.

    :param given: a real node's rules, which it has instead of what a kube-proxy of the lab would write.
    :param program: a kube-proxy program that writes its rules instead of the lab.
    """

    name: str
    given: GivenRules | None = field(default=None, repr=False)
    program: ProxyProgram | None = None

    @property
    def sees_bridged(self) -> bool:
        """Whether its rules see what its bridges pass on."""
        asked = self.bridge_nf_call_iptables
        return self.proxy_mode is not None if asked is None else asked


@dataclass(frozen=True)
class End:
    """One end of a link: an interface of a host."""

    __pydantic_config__ = STRICT_KEYS

    host: Annotated[str, Field(description="The host that has this interface.")]
    interface: Annotated[
        str, Field(description="The interface's name in that host.", json_schema_extra={"pattern": INTERFACE})
    ]
    addresses: Annotated[
        tuple[FileInterface, ...],
        FailFast(),
        Field(description="Addresses with their subnet's prefix length, such as 10.0.0.1/24 and fd00::1/64."),
    ] = ()
    mtu: Annotated[
        int | None, Strict(), Field(ge=68, le=65535, description="The largest packet in bytes; else 1500.")
    ] = None
    tx_checksum: Annotated[
        bool,
        Strict(),
        Field(
            alias="tx-checksum",
            description="Whether it leaves checksums to whoever gets its packets, as ethtool -K tx has it.",
        ),
    ] = True
    bridge: Annotated[
        str,
        Field(
            description="A bridge of the host, of which this interface is a port. The addresses are the bridge's: ports"
            " of one bridge are written with the same, or without any on a host that only switches.",
            json_schema_extra={"pattern": INTERFACE},
        ),
    ] = ""
    vxlan: Annotated[
        int | None,
        Strict(),
        Field(
            ge=1,
            lt=1 << 24,
            description="Makes the link a VXLAN tunnel with this number (VNI), by other links of its two hosts.",
        ),
    ] = None


@dataclass(frozen=True)
class Link:
    """A veth pair, a VXLAN tunnel where its ends say so, or where it has more than two ends, a segment they share."""

    ends: tuple[End, ...]

    @property
    def is_tunnel(self) -> bool:
        """Whether its packets travel in those of other links."""
        return self.ends[0].vxlan is not None

    @property
    def is_shared(self) -> bool:
        """Whether more than two interfaces are on it, joined by a switch."""
        return len(self.ends) > 2


@dataclass(frozen=True)
class Topology:
    """What to build. Always valid: making one refuses what no lab could be built from.

    :param name: a DNS label.
    :param services: and ``endpoint_slices`` and ``service_cidrs``: what kube-proxy would see of the API server, on
        every node.
    :raises lab.kubernetes.errors.TopologyError: for the first thing wrong (see :mod:`lab.topology.checks`).
    """

    name: str
    hosts: tuple[Host, ...]
    links: tuple[Link, ...] = ()
    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    description: str = ""
    service_cidrs: tuple[IPNetwork, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    def host(self, name: str) -> Host:
        """Find a host by its name.

        :raises KeyError: where there is none.
        """
        return self._hosts[name]

    def ends(self, host: str) -> tuple[End, ...]:
        """List the interfaces of a host, in the order of the links."""
        return self._ends.get(host, ())

    def neighbours(self, end: End) -> tuple[End, ...]:
        """Return the ends that an end's frames come to, the nearest first: its link's, and what bridges join to it."""
        return tuple(one.end for one in self.segments.neighbours(end))

    @cached_property
    def segments(self) -> Segments:
        """Who is on one segment with whom."""
        return Segments(self.links)

    def addresses(self, host: str, family: Family | None = None) -> tuple[IPAddress, ...]:
        """List the addresses of a host, of one family or of both, in the order of the links."""
        found = (own for end in self.ends(host) for own in end.addresses if family in (None, Family.of(own)))
        return tuple(dict.fromkeys(own.ip for own in found))  # those of a bridge stand at each of its ports

    def host_of(self, address: IPAddress | str) -> Host | None:
        """Return which host has an address (no VIP: nodes only rewrite those); None where no host has it."""
        owner = self._owners.get(str(address))
        return None if owner is None else self._hosts[owner]

    @property
    def nodes(self) -> tuple[Host, ...]:
        """The hosts with kube-proxy's rules."""
        return tuple(host for host in self.hosts if host.proxy_mode is not None)

    @cached_property
    def bridging(self) -> frozenset[str]:
        """The names of the hosts that have a bridge, whose ports take frames for others."""
        return frozenset(end.host for link in self.links for end in link.ends if end.bridge)

    @cached_property
    def servers(self) -> tuple[Host, ...]:
        """The hosts that have an endpoint's address."""
        names = {self._owners.get(address) for address in self.endpoint_addresses}
        return tuple(host for host in self.hosts if host.name in names)

    @property
    def clients(self) -> tuple[Host, ...]:
        """The hosts that only ask: neither node nor router nor server."""
        others = {host.name for host in (*self.nodes, *self.servers)}
        return tuple(host for host in self.hosts if host.name not in others and not host.forwarding)

    @property
    def endpoint_addresses(self) -> Iterable[str]:
        """The addresses of all endpoints, in their usual form, each as often as it occurs."""
        return (
            address
            for piece in self.endpoint_slices
            if piece.address_type != "FQDN"
            for endpoint in piece.endpoints
            for address in endpoint.addresses
        )

    @cached_property
    def _hosts(self) -> dict[str, Host]:
        return {host.name: host for host in self.hosts}

    @cached_property
    def _ends(self) -> dict[str, tuple[End, ...]]:
        ends: dict[str, list[End]] = {}
        for link in self.links:
            for end in link.ends:
                ends.setdefault(end.host, []).append(end)
        return {host: tuple(found) for host, found in ends.items()}

    @cached_property
    def _owners(self) -> dict[str, str]:
        return {str(address.ip): end.host for link in self.links for end in link.ends for address in end.addresses}
