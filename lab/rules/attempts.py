# SPDX-License-Identifier: MIT
"""Tries what may be otherwise, and remembers what differed then."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from lab.errors import LabError
from lab.kubeproxy.services import MANY_ENDPOINTS
from lab.rules.diff import Key, unlike, unlike_places
from lab.rules.services import only_of, services_in
from lab.rules.side import Place, Side
from lab.rules.whatifs import WhatIf, same_dump

if TYPE_CHECKING:
    from lab.kubernetes.objects import Service
    from lab.rules.dump import Dump
    from lab.rules.source import Proxy

Sides = Callable[["Proxy", "Dump"], "tuple[Dump, Dump]"]
Chosen = dict[str, WhatIf]
"""What is otherwise, by its setting."""

IMPOSSIBLE: Final = 1 << 60
"""As much differs where something cannot be rendered or loaded."""

_DIFFERING: Final = 20  # Services in a sample
_SORTS: Final = 40  # of Services in it


class Attempts:
    """What was tried, and what differed then.

    :param sides: returns kube-proxy's rules and the node's as they are to be compared.
    """

    def __init__(self, proxy: Proxy, found: Dump, sides: Sides, *, uncommented: bool = False) -> None:
        self.proxy, self._found, self._sides = proxy, found, sides
        self._uncommented = uncommented
        self._known: dict[frozenset[WhatIf], Counter[Key] | None] = {}
        self._applied: dict[frozenset[WhatIf], tuple[Proxy, Dump]] = {}
        self._dumps: dict[tuple[WhatIf, int], tuple[Dump, Dump]] = {}

    def applied(self, chosen: Chosen) -> tuple[Proxy, Dump]:
        """Return kube-proxy and the node's rules with some things otherwise."""
        key = frozenset(chosen.values())
        if key not in self._applied:
            proxy, found = self.proxy, self._found
            for one in chosen.values():
                proxy = one.proxy(proxy)
                if one.dump is not same_dump:
                    found = self._changed(one, found)
            self._applied[key] = proxy, found
        return self._applied[key]

    def _changed(self, one: WhatIf, found: Dump) -> Dump:
        """Change the node's rules once, whatever else is tried with that."""
        key = one, id(found)
        if key not in self._dumps:
            self._dumps[key] = found, one.dump(found)
        return self._dumps[key][1]

    def sides(self, chosen: Chosen) -> tuple[Dump, Dump]:
        """Return both sides with some things otherwise."""
        return self._sides(*self.applied(chosen))

    def differing(self, chosen: Chosen) -> Counter[Key] | None:
        """Return what differs then; None where that cannot be rendered or loaded."""
        key = frozenset(chosen.values())
        if key not in self._known:
            try:
                self._known[key] = unlike(*self.sides(chosen), uncommented=self._uncommented)
            except LabError:
                self._known[key] = None
        return self._known[key]

    def worse(self, chosen: Chosen, base: Counter[Key]) -> list[Place]:
        """Return the places where more differs than there did."""
        return list(unlike_places(*self.sides(chosen), uncommented=self._uncommented, known=base))

    def size(self, chosen: Chosen) -> int:
        """Return how much differs then."""
        differing = self.differing(chosen)
        return IMPOSSIBLE if differing is None else sum(differing.values())

    def sample(self, chosen: Chosen, times: int = 1) -> Attempts:
        """Return attempts with a part of the Services: some that differ, and some of every sort."""
        services = self.proxy.services
        if len(services) <= (_DIFFERING + _SORTS) * times:
            return self
        expected, found = self.sides(chosen)
        self.differing(chosen)  # now that both sides are there
        node = Side(self._found)
        differ: dict[str, None] = {}
        for service in _differing(Side(expected), node, unlike_places(expected, found, uncommented=self._uncommented)):
            differ[service] = None
            if len(differ) == _DIFFERING * times:
                break
        del expected
        sorts: dict[Hashable, list[str]] = {}
        for one in services:
            own = sorts.setdefault(_sort(one), [])
            if len(own) < times:
                own.append(one.key)
        known = [name for own in list(sorts.values())[:_SORTS] for name in own]
        wanted = {*differ, *known}
        proxy = dataclasses.replace(
            self.proxy,
            services=tuple(one for one in services if one.key in wanted),
            endpoint_slices=tuple(one for one in self.proxy.endpoint_slices if one.service_key in wanted),
        )
        unknown = services_in(Side(found)) - {one.key for one in services}
        # Comments depend on how many endpoints there are.
        uncommented = (
            self._uncommented or sum(len(one.endpoints) for one in self.proxy.endpoint_slices) > MANY_ENDPOINTS
        )
        dump = only_of(node, {*wanted, *unknown})
        return Attempts(proxy, dump, self._sides, uncommented=uncommented)


def _differing(expected: Side, found: Side, places: Iterable[Place]) -> Iterator[str]:
    """Return the Services that some places are for."""
    for place in places:
        for side in (expected, found):
            if place in side.dump.containers:
                yield from sorted(side.services_of(place))


def _sort(service: Service) -> Hashable:
    """Return by what Services are alike for kube-proxy."""
    spec, ingress = service.spec, service.status.load_balancer.ingress
    return (
        spec.type,
        spec.external_traffic_policy,
        spec.internal_traffic_policy,
        bool(spec.external_ips),
        bool(spec.load_balancer_source_ranges),
        tuple(one.ip_mode for one in ingress),
        bool(spec.affinity_seconds),
        any(not port.name for port in spec.ports),
        frozenset(service.metadata.annotations),
        frozenset(service.metadata.labels) - {"app"},
    )
