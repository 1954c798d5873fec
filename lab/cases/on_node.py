# SPDX-License-Identifier: MIT
"""Endpoints that are the node itself (hostNetwork): most cases are about a pod, behind a link of the node.

What such an endpoint says passes the node's OUTPUT, where no capture is and no drop in FORWARD has a say, and what it
hears ends in INPUT. A forged packet is put on a link, so it would come from the wrong side.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lab.scenario.roles import Roles
from lab.topology.model import Topology


def own_endpoints(topology: Topology, roles: Roles) -> tuple[str, ...]:
    """Return the addresses of the endpoints that the node whose conntrack is followed has itself."""
    if topology.host(roles.node).proxy_mode is None:
        return ()  # a pod whose own conntrack judges
    return tuple(address.address for host, address in roles.servers if host == roles.node)


def unusable(topology: Topology, roles: Roles) -> str:
    """Return why a case that is about a pod cannot run; empty where no endpoint is the node itself."""
    own = own_endpoints(topology, roles)
    if not own:
        return ""
    there = f"{roles.service} has {', '.join(own)} (hostNetwork)"
    needed = f"it needs endpoints other than {roles.node} itself, and {there}"
    return f"{needed}: give it a pod's alone, or take another Service by --service"


def without(topology: Topology, service: str, addresses: Collection[str]) -> Topology:
    """Return a topology in which a Service lacks some of its endpoints.

    :param service: its port, as :class:`lab.scenario.roles.Roles` has it.
    """
    key = service.partition(":")[0]
    slices = tuple(
        piece.model_copy(
            update={"endpoints": tuple(one for one in piece.endpoints if not {*one.addresses} & {*addresses})}
        )
        if piece.service_key == key
        else piece
        for piece in topology.endpoint_slices
    )
    return replace(topology, endpoint_slices=slices)
