# SPDX-License-Identifier: MIT
"""What both modes start from: each port of each service, with the endpoints that this node sends it to.

Follows kubernetes' ``pkg/proxy/serviceport.go``, ``pkg/proxy/endpointslicecache.go`` and
``pkg/proxy/topology.go``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import InputError, warn
from lab.kubeproxy import changes, faults
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.kubeproxy.options import ProxyOptions
    from lab.kubernetes.objects import Endpoint, EndpointSlice, Service

# kube-proxy's informers leave out objects with these labels (``cmd/kube-proxy/app/server.go``).
_OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"

# Annotations that ask for hints, up to v1.30 (``pkg/apis/core/annotation_key_constants.go``).
_HINTS = "service.kubernetes.io/topology-aware-hints"
_TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"

MANY_ENDPOINTS = 1000
"""With more endpoints in all services, rules of endpoints carry no comments (``largeClusterEndpointsThreshold``)."""

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # RFC 4648 section 6
_BASE32_PAIRS = [high + low for high in _BASE32 for low in _BASE32]


class Target(NamedTuple):
    """An endpoint of one service port. ``text`` is ``10.0.0.1:80`` or ``[fd00::1]:80``."""

    address: str
    port: int
    text: str
    ready: bool
    fallback: bool
    """It is terminating but still serves: used where no endpoint is ready."""
    local: bool
    zones: frozenset[str]
    """The zones that it is meant for, by its hints."""
    nodes: frozenset[str]
    """The nodes that it is meant for, by its hints."""


class Endpoints(NamedTuple):
    """The endpoints of one service port, in the order of their text.

    :param cluster: those for Cluster traffic policy; empty where it is not used.
    :param local: those for Local traffic policy; empty where it is not used.
    :param reachable: both together.
    :param exist: whether any is usable, on whatever node.
    :param total: how many there are that count for :data:`MANY_ENDPOINTS`.
    """

    cluster: tuple[Target, ...]
    local: tuple[Target, ...]
    reachable: tuple[Target, ...]
    exist: bool
    total: int = 0


class ServicePort(NamedTuple):
    """One port of a service in one address family.

    :param name: ``namespace/service:port``, or ``namespace/service`` where the port has no name.
    :param service: ``namespace/service``.
    :param protocol: in lower case, as in rules and hashes.
    :param affinity_seconds: 0 without session affinity.
    """

    name: str
    service: str
    port_name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    source_ranges: tuple[str, ...]
    health_check_node_port: int
    external_local: bool
    internal_local: bool
    affinity_seconds: int
    endpoints: Endpoints

    @property
    def internal_reachable(self) -> bool:
        """Whether traffic to the cluster IP finds an endpoint that its policy allows on this node."""
        return self.endpoints.exist and (bool(self.endpoints.local) or not self.internal_local)

    @property
    def external_reachable(self) -> bool:
        """Whether traffic from outside finds an endpoint that its policy allows on this node."""
        return self.endpoints.exist and (bool(self.endpoints.local) or not self.external_local)

    @property
    def externally_accessible(self) -> bool:
        """Whether it can be reached by more than its cluster IP."""
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)


def hashed(text: str, length: int) -> str:
    """Return the first characters of the base32 of the sha256, as kube-proxy shortens names; at most 16."""
    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
    # Eight pairs of characters, ten bits each: b32encode does the same in four times the time.
    pairs = [_BASE32_PAIRS[(bits >> shift) & 1023] for shift in range(70, -1, -10)]
    return "".join(pairs)[:length]


def service_ports(
    services: Iterable[Service], endpoint_slices: Iterable[EndpointSlice], options: ProxyOptions
) -> list[ServicePort]:
    """Find what kube-proxy has to write rules for, in the order of the services.

    Headless and ExternalName services, and those without a cluster IP of the family, give nothing.

    :raises InputError: where two services have the same name, cluster IP and port, or node port, and where this
        release fails with a Service, with the reason.
    """
    targets = _targets(endpoint_slices, options)
    not_ours = {_OTHER_PROXY} if changes.SELECTORS_APART in options.release else {_OTHER_PROXY, _HEADLESS}
    ports: list[ServicePort] = []
    keys: set[str] = set()
    for service in services:
        key = service.key
        if key in keys:
            raise InputError(f"there are two Services {key}", cure="keep one of them")
        keys.add(key)
        if service.spec.type == "ExternalName" or not not_ours.isdisjoint(service.metadata.labels):
            continue
        cluster_ips = service.spec.all_cluster_ips
        known = cluster_ips if changes.CLUSTER_IPS in options.release or options.own_cluster else cluster_ips[:1]
        cluster_ip = next((ip for ip in known if options.of_family(ip)), "None")
        if cluster_ip != "None":
            faults.refuse(service, options)
            ports += _ports(service, key, cluster_ip, targets, options)
    _check_conflicts(ports)
    return ports


def _targets(
    endpoint_slices: Iterable[EndpointSlice], options: ProxyOptions
) -> dict[tuple[str, str, str], dict[str, Target]]:
    """Collect endpoints by service, port name and protocol, then by their text.

    Up to v1.18 each slice stands for a subset of Endpoints: what several name is there several times.
    """
    found: dict[tuple[str, str, str], dict[str, Target]] = {}
    ipv6 = options.family is Family.IPV6
    from_slices = changes.SLICES in options.release
    for place, endpoint_slice in enumerate(endpoint_slices):
        service = endpoint_slice.service_key
        if service is None or not counts(endpoint_slice, options):
            continue
        for port in endpoint_slice.ports:
            number = port.port
            if number is None:  # "any port", which kube-proxy leaves out
                continue
            group = found.setdefault((service, port.name, port.protocol), {})
            for endpoint in endpoint_slice.endpoints:
                address = endpoint.addresses[0]
                text = f"[{address}]:{number}" if ipv6 else f"{address}:{number}"
                if not from_slices:
                    if endpoint.ready and not endpoint.terminating:
                        group[f"{text} {place}"] = _target(endpoint, address, number, text, options)
                elif text not in group or wins(endpoint, options):
                    group[text] = _target(endpoint, address, number, text, options)
    return found


def counts(endpoint_slice: EndpointSlice, options: ProxyOptions) -> bool:
    """Return whether kube-proxy reads a slice: it is of the family, and no label keeps it away."""
    if endpoint_slice.address_type != options.family.kubernetes:
        return False
    if changes.SLICES not in options.release:
        return True
    not_ours = {_HEADLESS} if changes.SELECTORS_APART in options.release else {_OTHER_PROXY, _HEADLESS}
    return not_ours.isdisjoint(endpoint_slice.metadata.labels)


def wins(endpoint: Endpoint, options: ProxyOptions) -> bool:
    """Return whether this word of an endpoint outdoes another slice's that does not; else chance decides."""
    if changes.SERVING_SLICE_WINS in options.release:
        return not endpoint.terminating
    return _is_local(endpoint, options)


def _is_local(endpoint: Endpoint, options: ProxyOptions) -> bool:
    return endpoint.node_name is not None and endpoint.node_name == options.node_name


def _target(endpoint: Endpoint, address: str, port: int, text: str, options: ProxyOptions) -> Target:
    local = _is_local(endpoint, options)
    fallback = endpoint.serving and endpoint.terminating
    hints = endpoint.hints
    zones = frozenset(one.name for one in hints.for_zones) if hints else _NOBODY
    nodes = frozenset(one.name for one in hints.for_nodes) if hints else _NOBODY
    return Target(address, port, text, endpoint.ready, fallback, local, zones, nodes)


_NOBODY: frozenset[str] = frozenset()


def _ports(
    service: Service,
    key: str,
    cluster_ip: str,
    targets: dict[tuple[str, str, str], dict[str, Target]],
    options: ProxyOptions,
) -> Iterable[ServicePort]:
    spec, release = service.spec, options.release
    ingress = service.status.load_balancer.ingress
    balancers = tuple(
        one.ip
        for one in ingress
        if one.ip
        and options.of_family(one.ip)
        and not (one.ip_mode == "Proxy" and options.gate("LoadBalancerIPMode", default=changes.IP_MODE in release))
    )
    external_ips = tuple(ip for ip in spec.external_ips if options.of_family(ip))
    if changes.EXTERNAL_IPS_GATE in release and not options.gate("AllowServiceExternalIPs", default=True):
        external_ips = ()
    ranges = tuple(cidr.strip() for cidr in spec.load_balancer_source_ranges if options.of_family(cidr))
    if changes.ANY_RANGE in release and any(cidr.endswith("/0") for cidr in ranges):
        ranges = ()
    external_local = spec.external_traffic_policy == "Local"
    apart = changes.EXTERNAL_CHAINS in release  # the policies of internal and external traffic
    if not apart:
        external_local = external_local and spec.type in ("LoadBalancer", "NodePort")
    internal_local = spec.internal_traffic_policy == "Local" and changes.INTERNAL_POLICY in release
    external = bool(external_ips or balancers)
    hinted = heeds_hints(service, options)
    for port in spec.ports:
        group = targets.get((key, port.name, port.protocol), {})
        ordered = [group[text] for text in sorted(group)]
        colon = port.name or changes.PORT_WITHOUT_COLON not in release
        total = len(ordered) if changes.COUNTS_UNREADY in release else sum(target.ready for target in ordered)
        if internal_local and not external_local and not apart:
            ordered = [target for target in ordered if target.local]  # v1.22, v1.23: whoever asks
        by_policy = internal_local and apart
        reached = external or port.node_port != 0
        chosen = _choose(ordered, external_local, by_policy, reached, options, hinted=hinted)
        yield ServicePort(
            name=f"{key}:{port.name}" if colon else key,
            service=key,
            port_name=port.name,
            protocol=port.protocol.lower(),
            cluster_ip=cluster_ip,
            port=port.port,
            node_port=port.node_port,
            external_ips=external_ips,
            load_balancer_ips=balancers,
            source_ranges=ranges,
            health_check_node_port=spec.health_check_node_port,
            external_local=external_local,
            internal_local=by_policy,
            affinity_seconds=spec.affinity_seconds,
            endpoints=chosen._replace(total=total),
        )


def heeds_hints(service: Service, options: ProxyOptions) -> bool:
    """Return whether the hints of a Service's endpoints are heeded."""
    release = options.release
    if changes.HINTS_ALWAYS in release:
        return True
    if changes.HINTS_ANNOTATED not in release:
        return False
    annotations = service.metadata.annotations
    asked = annotations.get(_HINTS, "")
    if not asked and changes.TOPOLOGY_MODE in release:
        asked = annotations.get(_TOPOLOGY_MODE, "")
    return asked in {"Auto", "auto"}


def _hinted(targets: list[Target], options: ProxyOptions) -> list[Target]:
    """Return the endpoints that hints leave to this node (``topologyModeFromHints`` in pkg/proxy/topology.go).

    Where any ready one has no hint, or none names this node or its zone, they are not heeded; nor where none is ready.
    """
    ready = [target for target in targets if target.ready]
    if changes.HINTS_NODES in options.release and options.node_name:
        name = options.node_name
        if all(target.nodes for target in ready) and any(name in target.nodes for target in ready):
            return [target for target in targets if name in target.nodes]
    zone = options.node_zone
    if zone and all(target.zones for target in ready) and any(zone in target.zones for target in ready):
        return [target for target in targets if zone in target.zones]
    return targets


def _choose(
    targets: list[Target],
    external_local: bool,
    internal_local: bool,
    external: bool,
    options: ProxyOptions,
    *,
    hinted: bool,
) -> Endpoints:
    """Choose the endpoints by traffic policy, as ``CategorizeEndpoints`` does.

    :param external: whether the port can be reached by more than its cluster IP.
    :param hinted: whether hints are heeded, which Local policies are not subject to.
    """
    falls_back = changes.TERMINATING in options.release
    # Even with externalTrafficPolicy Local, what the node itself and pods send goes to endpoints anywhere.
    cluster: tuple[Target, ...] = ()
    if external or not internal_local:
        cluster = _usable(_hinted(targets, options) if hinted else targets, falls_back=falls_back)
    if changes.TAKES_UNREADY in options.release and changes.REFUSES_UNREADY not in options.release:
        local = tuple([target for target in cluster if target.local])
        return Endpoints(cluster, local, tuple(targets), bool(targets))
    if not (internal_local or (external_local and external)):
        return Endpoints(cluster, (), cluster, bool(cluster))
    local = _usable([target for target in targets if target.local], falls_back=falls_back)
    union = {target.text: target for target in (*cluster, *local)}
    reachable = tuple([union[text] for text in sorted(union)])
    return Endpoints(cluster, local, reachable, bool(_usable(targets, falls_back=falls_back)))


def _usable(targets: list[Target], *, falls_back: bool) -> tuple[Target, ...]:
    """Return the ready ones, or those that still serve while terminating where none is ready."""
    ready = tuple([target for target in targets if target.ready])
    return ready or tuple([target for target in targets if falls_back and target.fallback])


def changed_services(before: Iterable[ServicePort], after: Iterable[ServicePort]) -> set[str]:
    """Return the names of the services of which any port, or its endpoints, differs."""
    old = {(port.name, port.protocol): port for port in before}
    new = {(port.name, port.protocol): port for port in after}
    return {
        port.service
        for ports, others in ((old, new), (new, old))
        for key, port in ports.items()
        if others.get(key) != port
    }


def _check_conflicts(ports: Sequence[ServicePort]) -> None:
    """Refuse what the API server's allocators would, and warn of what kube-proxy serves in no certain order.

    Nobody allocates external IPs and load balancers' addresses: the first Service of a file is served.
    """
    allocated: dict[tuple[str, str, int], ServicePort] = {}
    claimed: dict[tuple[str, str, int], ServicePort] = {}
    for port in ports:
        own = [(port.cluster_ip, port.port), *([("node port", port.node_port)] if port.node_port else [])]
        for address, number in own:
            owner = allocated.setdefault((port.protocol, address, number), port)
            if owner is not port:
                message = f"{owner.name} and {port.name} both claim {address} {number}/{port.protocol}"
                raise InputError(message, cure="give one of them another address or port")
        for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
            owner = claimed.setdefault((port.protocol, address, port.port), port)
            if owner is not port:
                claim = f"{address} {port.port}/{port.protocol}"
                warn(
                    f"{owner.name} and {port.name} both claim {claim}: kube-proxy sends it to either, by chance;"
                    f" here it goes to {owner.name}"
                )
