# SPDX-License-Identifier: MIT
"""The way that a packet takes through a topology, by its routes alone: which hosts it passes, and by which interfaces.

What a topology gives to the kernel is what is followed here: a host's own subnets and its routes, the longest prefix
first (RFC 1812, 5.2.4.3). What a node translates, the caller says.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.topology.model import End, Topology
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


def step(topology: Topology, host: str, destination: str) -> Step | None:
    """Return how a packet leaves a host; None where the host has no route there.

    :param destination: an address that is not the host's own.
    """
    wanted = ip_address(destination)
    found: list[tuple[int, bool, Step]] = []
    for end in topology.ends(host):
        owners = {own.ip: one for one in reversed(topology.segments.neighbours(end)) for own in one.end.addresses}
        for own in end.addresses:
            if _in(wanted, own.network):
                # Of the ports of a bridge, which have the same subnets, it is the one behind which somebody has it.
                found.append((own.network.prefixlen, wanted in owners, _step(topology, end, wanted, owners)))
        found += [
            (route.network.prefixlen, False, _step(topology, end, route.via, owners))
            for route in topology.host(host).routes
            if route.via in owners and _in(wanted, route.network)
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

    Who only bridges it is among them where its rules see that. It ends early where a host has no route, does not
    forward, or has sent it in a circle.
    """
    passed = [source]
    while str(ip_address(destination)) not in map(str, topology.addresses(passed[-1])):
        if len(passed) > 1 and not topology.host(passed[-1]).forwarding:
            break
        taken = step(topology, passed[-1], destination)
        if taken is None or taken.to is None or taken.to.host in passed:
            break
        passed += [*(one for one in taken.bridging if topology.host(one).sees_bridged), taken.to.host]
    return tuple(passed)


def _in(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
