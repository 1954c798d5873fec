# SPDX-License-Identifier: MIT
"""What kube-proxy leaves to chance: of several slices that name one endpoint, in Go's random order, which one wins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.kubeproxy import changes
from lab.kubeproxy.services import counts, wins

if TYPE_CHECKING:
    from lab.kubeproxy.options import ProxyOptions
    from lab.kubernetes.objects import Endpoint, EndpointSlice

Port = tuple[str, str, int | None]


@dataclass(frozen=True)
class Undecided:
    """An endpoint that several slices name, each in another way.

    :param service: ``namespace/name`` of the Service.
    :param address: the endpoint's.
    :param ways: the places of the slices of which one wins.
    """

    service: str
    address: str
    ways: tuple[int, ...]

    def settled(self, endpoint_slices: Sequence[EndpointSlice], winner: int) -> tuple[EndpointSlice, ...]:
        """Return the slices, the endpoint left out of each of ``ways`` but for the winner.

        :param winner: the place of a slice, one of ``ways``.
        """
        return tuple(
            _without(one, self.address) if place in self.ways and place != winner else one
            for place, one in enumerate(endpoint_slices)
        )


def undecided(endpoint_slices: Sequence[EndpointSlice], options: ProxyOptions) -> Iterator[Undecided]:
    """Find the endpoints of which kube-proxy may take one or another slice's word, with another result."""
    if changes.SLICES not in options.release:
        return
    found: dict[tuple[str, frozenset[Port], str], dict[int, Endpoint]] = {}
    for place, one in enumerate(endpoint_slices):
        if counts(one, options) and one.service_key:
            ports = frozenset((port.name, port.protocol, port.port) for port in one.ports)
            for endpoint in one.endpoints:
                found.setdefault((one.service_key, ports, endpoint.addresses[0]), {})[place] = endpoint
    for (service, _ports, address), places in found.items():
        if len(places) == 1:
            continue
        winners = {place: endpoint for place, endpoint in places.items() if wins(endpoint, options)}
        rest = winners or places
        if len({_said(endpoint) for endpoint in rest.values()}) > 1:
            yield Undecided(service, address, tuple(rest))


def _said(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.ready, endpoint.serving, endpoint.terminating, endpoint.node_name, endpoint.hints


def _without(one: EndpointSlice, address: str) -> EndpointSlice:
    left = tuple(endpoint for endpoint in one.endpoints if endpoint.addresses[0] != address)
    return one.model_copy(update={"endpoints": left})
