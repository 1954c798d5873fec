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
    from lab.topology.model import End, IPAddress, IPNetwork, Topology


def way_out(topology: Topology, host: str, destination: str) -> End | None:
    """Return the interface by which a packet leaves a host; None where the host has no route there.

    :param destination: an address that is not the host's own.
    """
    wanted = ip_address(destination)
    found: list[tuple[int, bool, End]] = []
    for end in topology.ends(host):
        gateways = {own.ip for own in topology.peer(end).addresses}
        is_behind = wanted in gateways  # of the ports of a bridge, which have the same subnets, this one
        found += [(own.network.prefixlen, is_behind, end) for own in end.addresses if _in(wanted, own.network)]
        found += [
            (route.network.prefixlen, False, end)
            for route in topology.host(host).routes
            if route.via in gateways and _in(wanted, route.network)
        ]
    # Of the same length there is one: the topology's rules see to that.
    return max(found, key=lambda one: one[:2])[2] if found else None


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

    It ends early where a host has no route, does not forward, or has sent it in a circle.
    """
    passed = [source]
    while str(ip_address(destination)) not in map(str, topology.addresses(passed[-1])):
        if len(passed) > 1 and not topology.host(passed[-1]).forwarding:
            break
        end = way_out(topology, passed[-1], destination)
        following = topology.peer(end).host if end else None
        if following is None or following in passed:
            break
        passed.append(following)
    return tuple(passed)


def _in(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
