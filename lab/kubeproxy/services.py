"""What both modes start from: each port of each service, with the endpoints that this node sends it to.

Follows kubernetes' ``pkg/proxy/serviceport.go``, ``pkg/proxy/endpointslicecache.go`` and
``pkg/proxy/topology.go``, for a node without a zone label: hints of endpoints are not used. Up to v1.15 an
endpoint was there or not: terminating ones that still serve, and internalTrafficPolicy, were not known.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import InputError
from lab.words import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.kubeproxy.options import ProxyOptions
    from lab.topology.kubernetes import EndpointSlice, Service

# kube-proxy's informers leave out objects with these labels (``cmd/kube-proxy/app/server.go``).
_NOT_OURS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")

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


class Endpoints(NamedTuple):
    """The endpoints of one service port, in the order of their text.

    :param cluster: those for Cluster traffic policy; empty where it is not used.
    :param local: those for Local traffic policy; empty where it is not used.
    :param reachable: both together.
    :param exist: whether any is usable, on whatever node.
    :param total: how many there are, usable or not.
    """

    cluster: tuple[Target, ...]
    local: tuple[Target, ...]
    reachable: tuple[Target, ...]
    exist: bool
    total: int


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

    :raises InputError: where two services claim the same name, address and port, or node port.
    """
    targets = _targets(endpoint_slices, options)
    ports: list[ServicePort] = []
    keys: set[str] = set()
    for service in services:
        key = service.key
        if key in keys:
            raise InputError(f"there are two Services {key}", cure="keep one of them")
        keys.add(key)
        if service.spec.type == "ExternalName" or any(label in service.metadata.labels for label in _NOT_OURS):
            continue
        cluster_ip = next((ip for ip in service.spec.all_cluster_ips if options.of_family(ip)), "None")
        if cluster_ip != "None":
            ports += _ports(service, key, cluster_ip, targets, options)
    _refuse_conflicts(ports)
    return ports


def _targets(
    endpoint_slices: Iterable[EndpointSlice], options: ProxyOptions
) -> dict[tuple[str, str, str], dict[str, Target]]:
    """Collect endpoints by service, port name and protocol, then by their text."""
    found: dict[tuple[str, str, str], dict[str, Target]] = {}
    ipv6 = options.family is Family.IPV6
    address_type = "IPv6" if ipv6 else "IPv4"
    falls_back = not options.release.xlb_chains
    for endpoint_slice in endpoint_slices:
        service = endpoint_slice.service_key
        if (
            service is None
            or endpoint_slice.address_type != address_type
            or any(label in endpoint_slice.metadata.labels for label in _NOT_OURS)
        ):
            continue
        for port in endpoint_slice.ports:
            number = port.port
            if number is None:  # "any port", which kube-proxy leaves out
                continue
            group = found.setdefault((service, port.name, port.protocol), {})
            for endpoint in endpoint_slice.endpoints:
                address = endpoint.addresses[0]
                text = f"[{address}]:{number}" if ipv6 else f"{address}:{number}"
                local = endpoint.node_name is not None and endpoint.node_name == options.node_name
                if text not in group or local:
                    fallback = falls_back and endpoint.serving and endpoint.terminating
                    group[text] = Target(address, number, text, endpoint.ready, fallback, local)
    return found


def _ports(
    service: Service,
    key: str,
    cluster_ip: str,
    targets: dict[tuple[str, str, str], dict[str, Target]],
    options: ProxyOptions,
) -> Iterable[ServicePort]:
    spec = service.spec
    ingress = service.status.load_balancer.ingress
    balancers = tuple(one.ip for one in ingress if one.ip and one.ip_mode != "Proxy" and options.of_family(one.ip))
    external_ips = tuple(ip for ip in spec.external_ips if options.of_family(ip))
    ranges = tuple(cidr for cidr in spec.load_balancer_source_ranges if options.of_family(cidr))
    if any(cidr.endswith("/0") for cidr in ranges):  # "any" is the same as no range
        ranges = ()
    external_local = spec.external_traffic_policy == "Local"
    internal_local = spec.internal_traffic_policy == "Local" and not options.release.xlb_chains
    external = bool(external_ips or balancers)
    for port in spec.ports:
        group = targets.get((key, port.name, port.protocol), {})
        ordered = [group[text] for text in sorted(group)]
        chosen = _choose(ordered, external_local, internal_local, external or port.node_port != 0)
        yield ServicePort(
            name=f"{key}:{port.name}" if port.name else key,
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
            internal_local=internal_local,
            affinity_seconds=spec.affinity_seconds,
            endpoints=chosen,
        )


def _choose(targets: list[Target], external_local: bool, internal_local: bool, external: bool) -> Endpoints:
    """Choose the endpoints by traffic policy, as ``CategorizeEndpoints`` does.

    :param external: whether the port can be reached by more than its cluster IP.
    """
    # Even with externalTrafficPolicy Local, what the node itself and pods send goes to endpoints anywhere.
    cluster = _usable(targets) if external or not internal_local else ()
    if not (internal_local or (external_local and external)):
        return Endpoints(cluster, (), cluster, bool(cluster), len(targets))
    local = _usable([target for target in targets if target.local])
    union = {target.text: target for target in (*cluster, *local)}
    reachable = tuple([union[text] for text in sorted(union)])
    any_usable = any(target.ready or target.fallback for target in targets)
    return Endpoints(cluster, local, reachable, any_usable, len(targets))


def _usable(targets: list[Target]) -> tuple[Target, ...]:
    """Return the ready ones, or those that still serve while terminating where none is ready."""
    ready = tuple([target for target in targets if target.ready])
    return ready or tuple([target for target in targets if target.fallback])


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


def _refuse_conflicts(ports: Sequence[ServicePort]) -> None:
    """Refuse what the API server's allocators would, and what kube-proxy would serve in no certain order."""
    owners: dict[tuple[str, str, int], ServicePort] = {}
    for port in ports:
        claims = [(ip, port.port) for ip in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips)]
        if port.node_port:
            claims.append(("node port", port.node_port))
        for address, number in claims:
            owner = owners.setdefault((port.protocol, address, number), port)
            if owner is not port:
                message = f"{owner.name} and {port.name} both claim {address} {number}/{port.protocol}"
                raise InputError(message, cure="give one of them another address or port")
