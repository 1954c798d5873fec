# SPDX-License-Identifier: MIT
"""Which Services the rules of a dump are for, and what is left of a dump without some of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lab.rules.side import Place, Side, named_service, service_of
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.rules.dump import Container, Dump, Line

_BARE_SETS: Final = ("cluster-ips", "hairpin-connections", "firewall-allow")
_ADDRESSES: Final = re.compile(r"(?<![^ ])(?:[0-9]+\.){3}[0-9]+(?= )|(?<![^ ])[0-9a-f]*:[0-9a-f:.]*(?= )")


def services_in(side: Side) -> set[str]:
    """Return the Services that a dump's rules are for."""
    said = {
        service
        for one in side.dump.containers.values()
        for line in (*one.lines, *one.elements)
        if (service := service_of(line.text))
    }
    # Whatever leads to the other chains has said whose they are.
    return said.union(service for place in side.dump.containers if (service := named_service(place)))


def only_of(side: Side, services: Collection[str]) -> Dump:
    """Return a dump without what is for other Services than these; what is for none of them stays."""
    return _left(side, lambda own: own not in services)


def without(side: Side, services: Collection[str]) -> Dump:
    """Return a dump without what is for these Services alone."""
    return _left(side, lambda own: own in services)


def _left(side: Side, is_gone: Callable[[str], bool]) -> Dump:
    """Return what is left of a dump without some Services."""
    containers: dict[Place, Container] = {}
    gone: list[str] = []
    is_nft = side.dump.mode is ProxyMode.NFTABLES
    for place, one in side.dump.containers.items():
        whose = side.services[place]
        if whose and all(map(is_gone, whose)):
            gone += [line.text for line in one.lines if is_nft]
            continue
        kept = replace(one, lines=[], elements=[])
        for some, into in ((one.lines, kept.lines), (one.elements, kept.elements)):
            for line in some:
                if not _is_of_one(side, one, line, is_gone):
                    into.append(line)
                elif is_nft:
                    gone.append(line.text)
        whole = (len(kept.lines), len(kept.elements)) == (len(one.lines), len(one.elements))
        containers[place] = one if whole and one.kind == "chain" else kept
    _forget(containers, gone)
    return replace(side.dump, containers=containers)


def _is_of_one(side: Side, container: Container, line: Line, is_gone: Callable[[str], bool]) -> bool:
    """Report whether a rule or an element is for a Service that is gone, or leads to where all is for one of these."""
    if service := service_of(line.text):
        return is_gone(service)
    whose = [side.services[target] for target in side.targets(container, line)]
    return any(len(one) == 1 and all(map(is_gone, one)) for one in whose)


def _forget(containers: dict[Place, Container], gone: Iterable[str]) -> None:
    """Take addresses of what is gone out of nft's sets of bare addresses."""
    sets = [one for one in containers.values() if one.kind == "set" and one.name in _BARE_SETS]
    if not sets:
        return
    others = (line.text for one in containers.values() if one not in sets for line in (*one.lines, *one.elements))
    lost = {word for text in gone for word in _ADDRESSES.findall(text)}
    lost -= {word for text in others for word in _ADDRESSES.findall(text)}
    for one in sets:
        one.elements[:] = [line for line in one.elements if line.text.split(" ")[0] not in lost]
