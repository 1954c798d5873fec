# SPDX-License-Identifier: MIT
"""What kube-proxy leaves to chance, beyond the order of rules: each way can be tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.kubeproxy.chance import Undecided, undecided
from lab.rules.whatifs import WhatIf
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.rules.source import Proxy


def chances(proxy: Proxy) -> Iterator[WhatIf]:
    """Return what kube-proxy leaves to chance, beyond the order of rules.

    Which of several slices counts; in nftables mode also which of several Services an address that all claim leads to.
    """
    if proxy.mode is ProxyMode.NFTABLES:
        yield from _claims(proxy)
    slices = proxy.endpoint_slices
    for one in undecided(slices, proxy.options):
        for winner in one.ways:
            name = slices[winner].metadata.name
            sentence = (
                f"Which slice's word of {one.address} counts for {one.service}, kube-proxy leaves to chance: here it is"
                f" that of {name}."
            )
            setting = f"slice of {one.service} {one.address}"
            yield WhatIf(setting, sentence, "", _settled(one, name), by_chance=True)


def _claims(proxy: Proxy) -> Iterator[WhatIf]:
    claims: dict[tuple[str, int, str], list[str]] = {}
    for service in proxy.services:
        balancers = (one.ip for one in service.status.load_balancer.ingress if one.ip)
        for port in service.spec.ports:
            for ip in {*service.spec.external_ips, *balancers}:
                if proxy.options.of_family(ip):
                    claims.setdefault((ip, port.port, port.protocol.lower()), []).append(service.key)
    for (ip, number, protocol), services in claims.items():
        for winner in services[1:]:
            sentence = (
                f"Which of {', '.join(services)} gets {ip} {number}/{protocol}, kube-proxy leaves to chance: here it is"
                f" {winner}."
            )
            yield WhatIf(f"claim of {ip} {number}/{protocol}", sentence, "", _first(winner, services), by_chance=True)


def _first(winner: str, services: Sequence[str]) -> Callable[[Proxy], Proxy]:
    """Return what puts a Service before others that claim the same."""

    def change(proxy: Proxy) -> Proxy:
        ours = [one for one in proxy.services if one.key in services]
        order = iter(sorted(ours, key=lambda one: one.key != winner))
        moved = (next(order) if one.key in services else one for one in proxy.services)
        return replace(proxy, services=tuple(moved))

    return change


def _settled(one: Undecided, winner: str) -> Callable[[Proxy], Proxy]:
    """Return what lets a slice win; by its name, for it may be one of fewer slices, and have been changed."""

    def change(proxy: Proxy) -> Proxy:
        slices = proxy.endpoint_slices
        for other in undecided(slices, proxy.options):
            if (other.service, other.address) == (one.service, one.address):
                ways = (way for way in other.ways if slices[way].metadata.name == winner)
                for way in ways:
                    return replace(proxy, endpoint_slices=other.settled(slices, way))
        return proxy

    return change
