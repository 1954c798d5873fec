# SPDX-License-Identifier: MIT
"""Why a packet that left a host came to nobody, and which links carry nothing, by the kernels' own word."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lab.netns.links import NO_CARRIER, link, neighbour_entry

if TYPE_CHECKING:
    from lab.evidence.sighting import Sighting
    from lab.fabric.lab import Lab
    from lab.topology.model import End


def why_astray(lab: Lab, sighting: Sighting) -> str:
    """Return why nobody took what a host has sent: for nobody's hardware address; empty where that is not why."""
    running, packet = lab.hosts[sighting.host], sighting.packet
    routed = running.routes.routed(ip_address(packet.destination.address))
    ends = [one for one in lab.topology.ends(sighting.host) if running.device(one).index == routed.index]
    if routed.gateway is None or not any(sighting.interface in (one.interface, one.bridge) for one in ends):
        return ""
    entry = neighbour_entry(running.routes, routed.index, routed.gateway)
    others = (other.end for one in ends for other in lab.topology.segments.neighbours(one))
    if entry is None or not entry.mac or entry.mac in {_mac(lab, other) for other in others}:
        return ""
    return f"to {entry.mac.hex(':')}, which nobody there has, but {sighting.host} takes for {routed.gateway}'s"


def _mac(lab: Lab, end: End) -> bytes:
    running = lab.hosts[end.host]
    return link(running.routes, running.device(end).index).mac


def broken_links(lab: Lab, hosts: Collection[str]) -> tuple[str, ...]:
    """Return in sentences which interfaces of some hosts' links carry nothing.

    Where an interface is down, its neighbours have no carrier, which is not told besides.
    """
    found: list[str] = []
    for one in lab.topology.links:
        if any(end.host in hosts for end in one.ends):
            faults = [(end, fault) for end in one.ends if (fault := _fault(lab, end))]
            causes = [(end, fault) for end, fault in faults if fault != NO_CARRIER] or faults
            found += [f"the interface {end.interface} of {end.host} {fault}" for end, fault in causes]
    return tuple(found)


def _fault(lab: Lab, end: End) -> str:
    running = lab.hosts[end.host]
    return link(running.routes, running.interfaces[end.interface].index).fault
