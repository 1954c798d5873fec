"""Which flows through UDP services are stale after a change: kube-proxy deletes their conntrack entries.

A UDP client that keeps its port never starts anew, so its entry leads to an endpoint that is gone, or past a
service that had none, for as long as it sends (kubernetes #105657, #91236). TCP is left alone: it notices.

Source: ``pkg/proxy/endpoints.go`` and ``pkg/proxy/conntrack/cleanup.go``. Three ways, by version:

* up to v1.31, what the change itself tells: an endpoint that is gone, the first endpoint of a service, a service
  that is gone. Up to v1.28 an endpoint counts as gone when it is no longer ready, from v1.29 on when it no longer
  serves (#119394).
* from v1.32 on, every entry to a service that has endpoints is stale where it leads to none that serves (#127318).
  A service that has lost its last endpoint is left as it is (#139628).
* from v1.34 on, the endpoints' ports count as well (#130542).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from lab.kubeproxy.services import changed_services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.options import ProxyOptions
    from lab.kubeproxy.services import ServicePort
    from lab.topology.kubernetes import EndpointSlice

Place: TypeAlias = tuple[str, int]
"""An address and a port."""

IsStale: TypeAlias = Callable[[Place, Place], bool]
"""Says of a UDP flow's first destination, and of who answers it, whether its entry is to be deleted."""

State: TypeAlias = "tuple[Sequence[ServicePort], Sequence[EndpointSlice]]"
"""What :func:`~lab.kubeproxy.services.service_ports` returned, and the slices that it was made of."""


def stale_flows(before: State, after: State, options: ProxyOptions) -> IsStale | None:
    """Tell which UDP flows went stale by a change; None where it changed no UDP service."""
    changed = changed_services(before[0], after[0])
    if not any(port.service in changed for ports, _ in (before, after) for port in _udp(ports)):
        return None
    return _by_change(before, after, options) if _minor(options) < 32 else _by_endpoints(after, options)


def _by_change(before: State, after: State, options: ProxyOptions) -> IsStale:
    old, new = _endpoints(before, options), _endpoints(after, options)
    # Destinations are addresses, whatever the port, and node ports, whatever the address.
    blackholes: set[str | int] = {port.cluster_ip for port in _udp(before[0]) if port.name not in new}
    gone: set[tuple[str | int, str]] = set()
    for port in _udp(after[0]):
        destinations: list[str | int] = [*_addresses(port)]
        if port.node_port:
            destinations.append(port.node_port)
        was, now = old.get(port.name, set()), new[port.name]
        if now and not was:
            blackholes.update(destinations)
        gone |= {(destination, address) for destination in destinations for address, _ in was - now}

    def is_stale(destination: Place, endpoint: Place) -> bool:
        return any(part in blackholes or (part, endpoint[0]) in gone for part in destination)

    return is_stale


def _by_endpoints(after: State, options: ProxyOptions) -> IsStale:
    length = 2 if _minor(options) >= 34 else 1  # of what is compared: address and port, or the address
    live: dict[Place | int, set[tuple[str | int, ...]]] = {}
    endpoints = _endpoints(after, options)
    for port in _udp(after[0]):
        if serving := {endpoint[:length] for endpoint in endpoints[port.name]}:
            live.update({(address, port.port): serving for address in _addresses(port)})
            if port.node_port:
                live[port.node_port] = serving

    def is_stale(destination: Place, endpoint: Place) -> bool:
        return any(key in live and endpoint[:length] not in live[key] for key in (destination, destination[1]))

    return is_stale


def _endpoints(state: State, options: ProxyOptions) -> dict[str, set[Place]]:
    """Collect the endpoints that flows may lead to, by the names of UDP ports."""
    ports, slices = state
    names = {(port.service, port.port_name): port.name for port in _udp(ports)}
    found: dict[str, set[Place]] = {name: set() for name in names.values()}
    by_readiness = _minor(options) < 29
    for piece in slices:
        service = piece.service_key or ""
        for port in piece.ports:
            name = names.get((service, port.name)) if port.protocol == "UDP" else None
            if name is not None and port.port is not None:
                found[name] |= {
                    (endpoint.addresses[0], port.port)
                    for endpoint in piece.endpoints
                    if (endpoint.ready if by_readiness else endpoint.serving)
                    and options.of_family(endpoint.addresses[0])
                }
    return found


def _udp(ports: Sequence[ServicePort]) -> list[ServicePort]:
    return [port for port in ports if port.protocol == "udp"]


def _addresses(port: ServicePort) -> list[str]:
    return [port.cluster_ip, *port.external_ips, *port.load_balancer_ips]


def _minor(options: ProxyOptions) -> int:
    return options.release.minor
