# SPDX-License-Identifier: MIT
"""Which entries of UDP flows kube-proxy deletes from conntrack when Services or endpoints change.

A UDP client that keeps its port never starts anew, so its entry leads to an endpoint that is gone, or past a
service that had none, for as long as it sends (kubernetes #105657, #91236). TCP is left alone: it notices; SCTP is
left alone as well.

Up to v1.31 the change itself tells: an endpoint that is gone, the first endpoint of a Service, a Service that is
gone. From v1.32 on entries are laid beside the endpoints that there are. What differs within the two has its names
in :mod:`lab.kubeproxy.changes`; source: real kube-proxies' calls of conntrack, and from v1.32 on their deletions, and
``pkg/proxy/endpoints.go`` and ``pkg/proxy/conntrack/cleanup.go``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from lab.kubeproxy import changes, services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lab.kubeproxy.options import ProxyOptions
    from lab.kubeproxy.services import ServicePort
    from lab.kubernetes.objects import Endpoint, EndpointPort, EndpointSlice

Place: TypeAlias = tuple[str, int]
"""An address and a port."""

IsStale: TypeAlias = Callable[[Place, Place], bool]
"""Says of a UDP flow's first destination, and of who answers it, whether its entry is to be deleted."""

State: TypeAlias = "tuple[Sequence[ServicePort], Sequence[EndpointSlice]]"
"""What :func:`~lab.kubeproxy.services.service_ports` returned, and the slices that it was made of."""

NOTHING: Final[State] = ((), ())
"""What a kube-proxy knows that has just started: with its first sync all there is has changed."""

_Name: TypeAlias = tuple[str, str]  # of a Service, and of its port
_Counts: TypeAlias = "Callable[[Endpoint], bool]"


def stale_flows(before: State, after: State, options: ProxyOptions) -> IsStale | None:
    """Return which entries are deleted when the rules of a change are written; None where no change asks for it."""
    if changes.ENTRIES_RECONCILED in options.release:
        return _by_endpoints(after, options) if _touches_udp(before[1], after[1], options) else None
    return _by_change(before, after, options)


def flows_to_opened_ports(before: State, after: State, options: ProxyOptions) -> IsStale | None:
    """Return which entries are deleted before the rules of a change are written; None where none are.

    Those to the number of a node port that is opened, whatever the address.
    """
    if changes.ENTRIES_OF_NODE_PORT in options.release:
        return None
    old = {(name, port.node_port) for name, port in _udp(before[0]).items()}
    opened = {port.node_port for name, port in _udp(after[0]).items() if (name, port.node_port) not in old} - {0}
    if not opened:
        return None
    return lambda destination, _endpoint: destination[1] in opened


def _by_change(before: State, after: State, options: ProxyOptions) -> IsStale | None:
    release = options.release
    counts = _counted(options)
    was, now = _endpoints(before[1], options, counts), _endpoints(after[1], options, counts)
    # Up to these patches an endpoint is gone only where its address is: see changes.ENTRIES_OF_STOPPED.
    by_address = changes.ENTRIES_BY_SERVING in release and changes.ENTRIES_OF_STOPPED not in release
    left = _endpoints(after[1], options, lambda _endpoint: True) if by_address else now
    ports = _udp(after[0])
    # Destinations are addresses, whatever the port, and node ports, whatever the address.
    emptied: set[str | int] = {port.cluster_ip for name, port in _udp(before[0]).items() if name not in ports}
    gone: set[tuple[str | int, str]] = set()
    for name, port in ports.items():
        first, last = now.get(name), was.get(name, set())
        if first and not last:
            emptied.update((port.cluster_ip, *port.external_ips))
            if changes.ENTRIES_OF_BALANCER in release:
                emptied.update(port.load_balancer_ips)
            if changes.ENTRIES_OF_NODE_PORT in release and port.node_port:
                emptied.add(port.node_port)
        destinations: list[str | int] = [*port.external_ips, *port.load_balancer_ips]
        if port.node_port:
            destinations.append(port.node_port)
        if changes.ENTRIES_OF_CLUSTER_IP in release or not port.node_port:
            destinations.append(port.cluster_ip)
        ended = last - left.get(name, set())
        gone |= {(destination, address) for destination in destinations for address, _ in ended}
    if not emptied and not gone:
        return None

    def is_stale(destination: Place, endpoint: Place) -> bool:
        if any(part in emptied for part in destination):
            return True
        # Of those to an endpoint, conntrack --dst-nat finds none that is not translated.
        return endpoint[0] != destination[0] and any((part, endpoint[0]) in gone for part in destination)

    return is_stale


def _by_endpoints(after: State, options: ProxyOptions) -> IsStale:
    release = options.release
    by_port = changes.ENTRIES_BY_PORT in release
    length = 2 if changes.ENTRIES_BY_TARGET in release else 1  # of what is compared: address and port, or the address
    live: dict[Place | str | int, set[tuple[str | int, ...]]] = {}
    endpoints = _endpoints(after[1], options, lambda endpoint: endpoint.serving)
    for name, port in _udp(after[0]).items():
        if serving := {endpoint[:length] for endpoint in endpoints.get(name, ())}:
            for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
                # By address alone, one of its ports has the say for all: here the last, in kube-proxy any.
                live[(address, port.port) if by_port else address] = serving
            if port.node_port:
                live[port.node_port] = serving

    def is_stale(destination: Place, endpoint: Place) -> bool:
        address, number = destination
        keys: tuple[Place | str | int, ...] = (destination if by_port else address, number)
        return any(key in live and endpoint[:length] not in live[key] for key in keys)

    return is_stale


def _touches_udp(before: Iterable[EndpointSlice], after: Iterable[EndpointSlice], options: ProxyOptions) -> bool:
    """Return whether slices changed of a Service that has, or had, an endpoint with a UDP port."""
    old, new = _contents(before, options), _contents(after, options)
    changed = {key[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return any(
        port.protocol == "UDP" and endpoints
        for slices in (old, new)
        for key, (ports, endpoints) in slices.items()
        if key[0] in changed
        for port in ports
    )


def _contents(
    slices: Iterable[EndpointSlice], options: ProxyOptions
) -> dict[tuple[str, str], tuple[tuple[EndpointPort, ...], tuple[Endpoint, ...]]]:
    """Return what is in each slice, by the names of its Service and its own."""
    return {(service, piece.metadata.name): (piece.ports, piece.endpoints) for service, piece in _seen(slices, options)}


def _counted(options: ProxyOptions) -> _Counts:
    """Return which endpoints flows may lead to, where the change itself tells."""
    release = options.release
    if changes.ENTRIES_BY_SERVING in release:
        return lambda endpoint: endpoint.serving
    if changes.ENTRIES_OF_GONE in release and changes.ENTRIES_OF_UNREADY not in release:
        return lambda _endpoint: True
    if changes.SLICES in release:
        return lambda endpoint: endpoint.ready
    return lambda endpoint: endpoint.ready and not endpoint.terminating  # as Endpoints have it


def _endpoints(slices: Iterable[EndpointSlice], options: ProxyOptions, counts: _Counts) -> dict[_Name, set[Place]]:
    """Collect endpoints by the names of Services and their UDP ports, whether there is such a Service or not."""
    found: dict[_Name, set[Place]] = {}
    for service, piece in _seen(slices, options):
        for port in piece.ports:
            if port.protocol == "UDP" and port.port is not None:
                places = {(endpoint.addresses[0], port.port) for endpoint in piece.endpoints if counts(endpoint)}
                found.setdefault((service, port.name), set()).update(places)
    return found


def _seen(slices: Iterable[EndpointSlice], options: ProxyOptions) -> Iterator[tuple[str, EndpointSlice]]:
    """Return the slices that this kube-proxy takes in, each with the name of its Service."""
    for piece in slices:
        if piece.service_key is not None and services.counts(piece, options):
            yield piece.service_key, piece


def _udp(ports: Iterable[ServicePort]) -> dict[_Name, ServicePort]:
    return {(port.service, port.port_name): port for port in ports if port.protocol == "udp"}
