# SPDX-License-Identifier: MIT
"""Which endpoints of a Service a node's rules lead to that kube-proxy's do not, or the other way round."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

from lab.kubernetes.objects import EndpointSlice
from lab.rules.services import services_in
from lab.rules.whatifs import WhatIf
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubernetes.objects import Service
    from lab.rules.side import Side
    from lab.rules.source import Proxy

_SERVICES: Final = 5  # so many are told one by one; more in one sentence
_NAMED: Final = 5  # in a sentence

#: Where a rule sends a packet: ``--to-destination`` of iptables, ``dnat to`` of nft, an element of a map from v1.36 on.
_DESTINATION: Final = re.compile(
    r"(?:--to-destination|dnat to) (?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d+)|: ([0-9a-f:.]+) \. (\d+)"
)
_LOCAL: Final = ("KUBE-SVL-", "KUBE-XLB-", "local-")
_LOCAL_ALONE: Final = "hairpin-connections"  # a set, from v1.36 on
_OF_ENDPOINT: Final = ("KUBE-SEP-", "endpoint-")

Place: TypeAlias = tuple[str, int]
"""An endpoint's address and port."""


@dataclass(frozen=True)
class _Other:
    """What is otherwise of one Service's endpoints.

    :param gone: kube-proxy's rules lead there, the node's do not.
    :param new: the other way round, with the name of the node that each is on, where that is known.
    """

    service: Service
    gone: frozenset[Place]
    new: Mapping[Place, str | None]


def other_endpoints(
    proxy: Proxy, expected: Side, found: Side, leaving: Collection[str] = frozenset()
) -> Iterator[WhatIf]:
    """Return what may be otherwise in the endpoints of Services that both sides know.

    :param leaving: Services that are left out.
    """
    wanted, given = _destinations(expected), _destinations(found)
    differing = [one for one in proxy.services if wanted.get(one.key, set()) != given.get(one.key, set())]
    if not differing:
        return
    known = services_in(found)
    address_type = "IPv6" if proxy.options.family is Family.IPV6 else "IPv4"
    slices: dict[str, list[EndpointSlice]] = {}
    for piece in proxy.endpoint_slices:
        if piece.service_key in known and piece.address_type == address_type:
            slices.setdefault(piece.service_key, []).append(piece)
    local = _local_addresses(found)
    others: list[_Other] = []
    for service in differing:
        if service.key in known and service.key not in leaving:
            ours, theirs = wanted.get(service.key, set()), given.get(service.key, set())
            new = {place: _node(place[0], slices.get(service.key, ()), local, proxy) for place in theirs - ours}
            others.append(_Other(service, frozenset(ours - theirs), new))
    for some in [[one] for one in others] if len(others) <= _SERVICES else [others]:
        setting = f"endpoints of {some[0].service.key}" if len(some) == 1 else "endpoints"
        yield WhatIf(setting, _sentence(some, slices), _cure(some), _changed(some, proxy.options.family))


def _destinations(side: Side) -> dict[str, set[Place]]:
    """Return where packets to each Service can be sent."""
    found: dict[str, set[Place]] = {}
    for place, one in side.dump.containers.items():
        whose = side.services[place]
        if len(whose) == 1 and place in side.used:
            for line in one.lines:
                found.setdefault(next(iter(whose)), set()).update(_of_rule(line.text))
    return found


def _of_rule(text: str) -> Iterator[Place]:
    if "--to-destination" in text or "dnat" in text:
        for said in _DESTINATION.finditer(text):
            yield said[1] or said[2] or said[4], int(said[3] or said[5])


def _local_addresses(side: Side) -> set[str]:
    """Return the addresses of the endpoints that are local to the node, as far as its rules say it."""
    found: set[str] = set()
    for place, one in side.dump.containers.items():
        if place[1].startswith(_LOCAL):
            for line in one.lines:
                led = [target for target in side.targets(one, line) if target[1].startswith(_OF_ENDPOINT)]
                texts = [line.text, *(other.text for target in led for other in side.dump.containers[target].lines)]
                found.update(address for text in texts for address, _ in _of_rule(text))
        elif place[1] == _LOCAL_ALONE:
            found.update(line.text.split(" ")[0] for line in one.elements)
    return found


def _node(address: str, slices: Iterable[EndpointSlice], local: set[str], proxy: Proxy) -> str | None:
    if address in local:
        return proxy.options.node_name
    known = (one for piece in slices for one in piece.endpoints if _plain(one.addresses[0]) == address)
    return next((one.node_name for one in known), None)


def _plain(address: str) -> str:
    return str(ip_address(address))


def _changed(others: Sequence[_Other], family: Family) -> Callable[[Proxy], Proxy]:
    """Return what gives kube-proxy the endpoints that the node has."""
    away = {one.service.key: one.gone | one.new.keys() for one in others}

    def change(proxy: Proxy) -> Proxy:
        slices: list[EndpointSlice] = []
        ports: dict[tuple[str, int], set[tuple[str, str]]] = {}
        for piece in proxy.endpoint_slices:
            if piece.service_key in away:
                for port in piece.ports:
                    if port.port is not None:
                        ports.setdefault((piece.service_key, port.port), set()).add((port.name, port.protocol))
                slices += _without(piece, away[piece.service_key])
            else:
                slices.append(piece)
        known = {one.key for one in proxy.services}
        for one in others:
            if one.service.key in known:
                slices += _with(one, ports, family)
        return replace(proxy, endpoint_slices=tuple(slices))

    return change


def _without(piece: EndpointSlice, away: frozenset[Place]) -> Iterator[EndpointSlice]:
    """Return a slice without some ports of some endpoints: a slice for each set of ports that is left."""
    left: dict[tuple[int, ...], list[object]] = {}
    for endpoint in piece.endpoints:
        address = _plain(endpoint.addresses[0]) if piece.address_type != "FQDN" else ""
        kept = tuple(number for number, port in enumerate(piece.ports) if (address, port.port or 0) not in away)
        left.setdefault(kept, []).append(endpoint)
    for kept, endpoints in left.items():
        if kept:
            ports = tuple(piece.ports[number] for number in kept)
            yield piece.model_copy(update={"endpoints": tuple(endpoints), "ports": ports})


def _with(
    other: _Other, ports: Mapping[tuple[str, int], set[tuple[str, str]]], family: Family
) -> Iterator[EndpointSlice]:
    """Return a slice for each endpoint that only the node has: of the ports that are known by its number."""
    service = other.service
    alone = {(service.spec.ports[0].name, service.spec.ports[0].protocol)} if len(service.spec.ports) == 1 else set()
    for number, ((address, port), node) in enumerate(sorted(other.new.items())):
        named = ports.get((service.key, port), alone)
        yield EndpointSlice.model_validate(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"of-the-node-{number}",
                    "namespace": service.metadata.namespace,
                    "labels": {"kubernetes.io/service-name": service.metadata.name},
                },
                "addressType": "IPv6" if family is Family.IPV6 else "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}, "nodeName": node}],
                "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol in sorted(named)],
            }
        )


def _sentence(others: Sequence[_Other], slices: Mapping[str, Sequence[EndpointSlice]]) -> str:
    if len(others) > 1:
        names = ", ".join(one.service.key for one in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        lacks, has = sum(len(one.gone) for one in others), sum(len(one.new) for one in others)
        said = [f"{lacks} missing on the node"] * bool(lacks) + [f"{has} only there"] * bool(has)
        return f"Endpoints of {len(others)} Services ({names}{more}) are other ones: {', '.join(said)}."
    [one] = others
    said = [_named(one, one.gone, slices, "missing on the node")] if one.gone else []
    said += [_named(one, one.new, slices, "on the node, but not among the objects' ready ones")] if one.new else []
    return f"{'. '.join(said)}."


def _named(one: _Other, places: Iterable[Place], slices: Mapping[str, Sequence[EndpointSlice]], words: str) -> str:
    found = sorted(places)
    listed = ", ".join(
        f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in found[:_NAMED]
    )
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    numbers = {port for _, port in found}
    names = {port.name for piece in slices.get(one.service.key, ()) for port in piece.ports if port.port in numbers}
    name = next(iter(names)) if len(names) == 1 else ""
    whose = f"{one.service.key}:{name}" if name else one.service.key
    if len(found) == 1:
        return f"The endpoint {listed} of {whose} is {words}"
    return f"{len(found)} endpoints of {whose} ({listed}{more}) are {words}"


def _cure(others: Sequence[_Other]) -> str:
    if any(one.new for one in others):
        return "get the objects at the time of the dump; if they are of one time, kube-proxy there is behind"
    return "newer than the dump, or kube-proxy there has not heard of it"
