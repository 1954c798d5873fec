# SPDX-License-Identifier: MIT
"""What the routes of a topology's hosts must keep, and the rules that choose between their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import nearest
from lab.kubernetes.errors import Path, TopologyError
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Collection

    from lab.topology.model import Host, Topology
    from lab.topology.values import IPNetwork


def check_routes(topology: Topology) -> None:
    """Refuse routes by gateways that are nobody's, and rules that lead nowhere.

    :raises TopologyError: for the first thing wrong.
    """
    for host in topology.hosts:
        ends = topology.ends(host.name)
        taken: set[tuple[int | None, IPNetwork]] = {(None, own.network) for end in ends for own in end.addresses}
        others = (other for end in topology.ends(host.name) for other in topology.neighbours(end))
        gateways = {address.ip for other in others for address in other.addresses}
        for index, route in enumerate(host.routes):
            path: Path = ("hosts", host.name, "routes", index)
            if route.network.version != route.via.version:
                message = f"{route.network} is {Family.of(route.network)}, the gateway {route.via} is not"
                raise TopologyError((*path, "via"), message, "give each family its own route")
            if route.via not in gateways:
                same = sorted(str(gateway) for gateway in gateways if gateway.version == route.via.version)
                cure = f"its neighbours are {', '.join(same[:5])}" if same else "add a link, or an address to one"
                raise TopologyError((*path, "via"), f"{route.via} is on no link of {host.name}", cure)
            if (route.table, route.network) in taken:
                message = f"{host.name} has a route to {route.network} already"
                raise TopologyError((*path, "to"), message, "keep one, or give it a table")
            taken.add((route.table, route.network))
        for index, closed in enumerate(host.closed_routes):
            if (closed.table, closed.to) in taken:
                message = f"{host.name} has a route to {closed.to} already"
                raise TopologyError(("hosts", host.name, "closed-routes", index, "to"), message, "keep one of them")
            taken.add((closed.table, closed.to))
        _rules(topology, host, {table for table, _network in taken})


def _rules(topology: Topology, host: Host, tables: Collection[int | None]) -> None:
    """Refuse rules for packets that cannot be, and those that lead to no route."""
    interfaces = {"lo", *(end.bridge or end.interface for end in topology.ends(host.name))}
    for index, rule in enumerate(host.rules):
        path: Path = ("hosts", host.name, "rules", index)
        if len(rule.families) > 1 and rule.source is not None and rule.to is not None:
            raise TopologyError((*path, "to"), f"{rule.to} is {Family.of(rule.to)}, {rule.source} is not", "take one")
        if rule.iif and rule.iif not in interfaces:
            raise TopologyError(
                (*path, "iif"), f"{host.name} has no interface {rule.iif}", nearest(rule.iif, interfaces)
            )
        if rule.table not in tables:
            cure = f"write table: {rule.table} with one of its routes"
            raise TopologyError((*path, "table"), f"{host.name} has no route in table {rule.table}", cure)
    used = {rule.table for rule in host.rules}
    tables_of = {
        "routes": [one.table for one in host.routes],
        "closed-routes": [one.table for one in host.closed_routes],
    }
    for key, its in tables_of.items():
        for index, table in enumerate(its):
            if table is not None and table not in used:
                message = f"no rule of {host.name} leads to table {table}"
                raise TopologyError(("hosts", host.name, key, index, "table"), message, "write one, or leave it out")
