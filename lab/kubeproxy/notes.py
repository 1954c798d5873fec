# SPDX-License-Identifier: MIT
"""What has to be known of a kube-proxy's rules beside the rules themselves, a sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.kubeproxy import changes
from lab.kubeproxy.services import heeds_hints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.kubeproxy.options import ProxyOptions
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.vocabulary import ProxyMode


def notes(
    services: Sequence[Service],
    slices: Sequence[EndpointSlice],
    options: ProxyOptions,
    mode: ProxyMode,
    *,
    zone: str,
    name: str,
) -> Iterator[str]:
    """Yield what a release's name leaves open, and what of the objects has no effect where another may expect one.

    :param zone: how the node's zone is given, and ``name`` how its name is; for the sentences.
    """
    if note := options.release.note(mode):
        yield note
    yield from _second_addresses(services, options)
    yield from _hints(services, slices, options, zone, name)


def _second_addresses(services: Sequence[Service], options: ProxyOptions) -> Iterator[str]:
    if changes.CLUSTER_IPS in options.release or options.own_cluster:
        return
    left_out = [service.key for service in services if any(map(options.of_family, service.spec.all_cluster_ips[1:]))]
    if left_out:
        first, count = left_out[0], len(left_out)
        which = f"{first} has" if count == 1 else f"{count} Services ({first}, ...) have"
        yield (
            f"{which} an address of {options.family} beside a first of the other family: kube-proxy"
            f" {options.release.name} knows the first alone, so no rule is written for it here"
            f" (v1.{changes.CLUSTER_IPS.minor} is the first that knows both)."
        )


def _hints(
    services: Sequence[Service], slices: Sequence[EndpointSlice], options: ProxyOptions, zone: str, name: str
) -> Iterator[str]:
    if changes.HINTS_ANNOTATED not in options.release:
        return
    heeded = {service.key for service in services if heeds_hints(service, options)}
    hints = [
        endpoint.hints
        for piece in slices
        if piece.service_key in heeded
        for endpoint in piece.endpoints
        if endpoint.hints is not None
    ]
    zones = {target.name for one in hints for target in one.for_zones}
    if zones and options.node_zone is None:
        yield f"Endpoints have hints for zones, which are not used: the node's zone is not known ({zone} says it)."
    elif options.node_zone in zones and changes.LOSES_ZONE in options.release:
        yield (
            f"Hints for the zone {options.node_zone} are heeded here, but kube-proxy {options.release.name} can lose"
            f" the node's zone when it starts ({changes.LOSES_ZONE.name}): then none for zones is."
        )
    heeds_nodes = changes.HINTS_NODES in options.release
    if heeds_nodes and options.node_name is None and any(one.for_nodes for one in hints):
        yield f"Endpoints have hints for nodes, which are not used: the node's name is not known ({name} says it)."
