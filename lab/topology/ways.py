# SPDX-License-Identifier: MIT
"""The way that a packet takes through a topology, by its routes alone: which hosts it passes, and by which interfaces.

What a topology gives to the kernel is what is followed here: a host's own subnets and its routes, the longest prefix
first (RFC 1812, 5.2.4.3). What a node translates, the caller says.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, NamedTuple

from lab.topology.keys import mark_and_mask
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.topology.model import End, Topology
    from lab.topology.route_keys import PolicyRule
    from lab.topology.segments import Neighbour
    from lab.topology.values import IPAddress, IPNetwork


class Step(NamedTuple):
    """How a packet leaves a host.

    :param end: the interface by which it does.
    :param gateway: to whose address: the gateway's, or the destination where that is in a subnet of the interface.
    :param to: who has that; None where nobody on the segment does.
    :param bridging: the hosts whose bridges pass it on, on its way there.
    """

    end: End
    gateway: IPAddress
    to: End | None
    bridging: tuple[str, ...] = ()


def step(
    topology: Topology, host: str, destination: str, *, source: str | None = None, came_by: str = "lo"
) -> Step | None:
    """Return how a packet leaves a host; None where the host has no route there.

    :param destination: an address that is not the host's own.
    :param source: the packet's, None before its sender has chosen one; ``came_by``: the interface that it came in by.
    """
    wanted, own = ip_address(destination), None if source is None else ip_address(source)
    for rule in topology.host(host).rules:
        if _fits(rule, wanted, own, came_by):
            found = _by_table(topology, host, wanted, rule.table)
            if found is not None:
                return found or None
    return _by_table(topology, host, wanted, None) or None


def _fits(rule: PolicyRule, wanted: IPAddress, source: IPAddress | None, came_by: str) -> bool:
    """Check whether a rule is for a packet. What marks it in between nobody knows here: it has none."""
    if rule.fwmark and mark_and_mask(rule.fwmark)[0]:
        return False
    sources = rule.source is None or (source is not None and _in(source, rule.source))
    return sources and (rule.to is None or _in(wanted, rule.to)) and rule.iif in ("", came_by)


def _by_table(topology: Topology, host: str, wanted: IPAddress, table: int | None) -> Step | Literal[False] | None:
    """Return where a routing table leads; its own subnets are in a host's main one, which is None.

    False where it says that nothing is sent there, behind which no further table is asked; None where it says nothing.
    """
    found: list[tuple[int, bool, Step | Literal[False]]] = [
        (route.to.prefixlen, False, False)
        for route in topology.host(host).closed_routes
        if route.table == table and _in(wanted, route.to)
    ]
    for end in topology.ends(host):
        owners = {own.ip: one for one in reversed(topology.segments.neighbours(end)) for own in one.end.addresses}
        for own in end.addresses if table is None else ():
            if _in(wanted, own.network):
                # Of the ports of a bridge, which have the same subnets, it is the one behind which somebody has it.
                found.append((own.network.prefixlen, wanted in owners, _step(topology, end, wanted, owners)))
        found += [
            (route.network.prefixlen, False, _step(topology, end, route.via, owners))
            for route in topology.host(host).routes
            if route.table == table and route.via in owners and _in(wanted, route.network)
        ]
    # Of the same length there is one: the topology's rules see to that.
    return max(found, key=lambda one: one[:2])[2] if found else None


def _step(topology: Topology, end: End, gateway: IPAddress, owners: Mapping[IPAddress, Neighbour]) -> Step:
    found = owners.get(gateway)
    if found is None:  # nobody has it; on a link of two, what is sent is still for the other
        others = topology.neighbours(end)
        return Step(end, gateway, others[0] if len(others) == 1 else None)
    return Step(end, gateway, found.end, found.bridging)


def way_out(topology: Topology, host: str, destination: str) -> End | None:
    """Return the interface by which a packet leaves a host; None where the host has no route there.

    :param destination: an address that is not the host's own.
    """
    found = step(topology, host, destination)
    return found.end if found else None


class Underlay(NamedTuple):
    """How a tunnel's packets travel.

    :param end: the interface by which they leave.
    :param local: and ``remote``: the addresses of the tunnel's two hosts.
    """

    end: End
    local: IPAddress
    remote: IPAddress


def underlay(topology: Topology, host: str, other: str, family: Family) -> Underlay | None:
    """Return how a tunnel's packets travel from a host to another; None where no other link leads there."""
    for far in topology.ends(other):
        for address in far.addresses if far.vxlan is None else ():
            end = way_out(topology, host, str(address.ip)) if Family.of(address) is family else None
            if end is None or end.vxlan is not None or way(topology, host, str(address.ip))[-1] != other:
                continue
            own = next((one.ip for one in end.addresses if Family.of(one) is family), None)
            if own is not None:
                return Underlay(end, own, address.ip)
    return None


def way(topology: Topology, source: str, destination: str) -> tuple[str, ...]:
    """Return the hosts that a packet passes, from the one that sends it to the one that has its destination.

    It is sent from the host's first address. Who only bridges it is among them where its rules see that. It ends early
    where a host has no route, does not forward, or has sent it in a circle.
    """
    passed, came_by = [source], "lo"
    sender = next((str(own) for own in topology.addresses(source, Family.of(ip_address(destination)))), None)
    while str(ip_address(destination)) not in map(str, topology.addresses(passed[-1])):
        if len(passed) > 1 and not topology.host(passed[-1]).forwarding:
            break
        taken = step(topology, passed[-1], destination, source=sender, came_by=came_by)
        if taken is None or taken.to is None or taken.to.host in passed:
            break
        passed += [*(one for one in taken.bridging if topology.host(one).sees_bridged), taken.to.host]
        came_by = taken.to.bridge or taken.to.interface
    return tuple(passed)


def _in(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
