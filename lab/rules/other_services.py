# SPDX-License-Identifier: MIT
"""Which Services a node's rules are for that the objects lack, or the other way round."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lab.rules.services import services_in, without
from lab.rules.side import Side
from lab.rules.whatifs import WhatIf

if TYPE_CHECKING:
    from lab.rules.dump import Dump
    from lab.rules.source import Proxy

_NAMED: Final = 5  # in a sentence


def other_services(proxy: Proxy, expected: Side, found: Side) -> Iterator[WhatIf]:
    """Return the Services that only the node, or only the objects, know."""
    known = {service.key for service in proxy.services}
    theirs, ours = services_in(found), services_in(expected)
    if only_there := theirs - known:
        sentence = f"{_listed(only_there)} on the node, but not among the objects."
        cure = "get the objects with -A, at the time of the dump"

        def left(dump: Dump) -> Dump:
            return without(Side(dump), only_there)

        yield WhatIf("Services on the node", sentence, cure, dump=left)
    if only_here := (ours & known) - theirs:
        sentence = f"{_listed(only_here)} among the objects, but without a rule on the node."
        cure = "newer than the dump, or kube-proxy there has not heard of it"

        def fewer(proxy: Proxy) -> Proxy:
            return replace(proxy, services=tuple(one for one in proxy.services if one.key not in only_here))

        yield WhatIf("Services of the objects", sentence, cure, fewer)


def _listed(services: Collection[str]) -> str:
    names = ", ".join(sorted(services)[:_NAMED])
    if len(services) == 1:
        return f"The Service {names} is"
    more = f" and {len(services) - _NAMED} more" if len(services) > _NAMED else ""
    return f"{len(services)} Services ({names}{more}) are"
