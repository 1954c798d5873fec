# SPDX-License-Identifier: MIT
"""Why a host took a packet in and routed it nowhere, by the kernel's own word.

Such a packet is dropped without an ICMP error, and martians are counted nowhere that is a namespace's own. So the
kernel is asked how it would route one like it (``ip route get ... iif``), by rules and tables and with the source's
validation (fib_validate_source, net/ipv4/fib_frontend.c). IPv6 validates no source.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, ip_address
from typing import Final

from lab.evidence.sighting import Sighting
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.vocabulary import Family

_ROUTES: Final = {
    errno.EHOSTUNREACH: "an unreachable route",
    errno.ENETUNREACH: "no route",
    errno.EACCES: "a prohibited route",
    errno.EINVAL: "a blackhole",
}


def why_unrouted(lab: Lab, sighting: Sighting) -> str:
    """Return why a host routes nowhere what came in to it; empty where that is not why it went no further."""
    running, packet = lab.hosts[sighting.host], sighting.packet
    source, target = ip_address(packet.source.address), ip_address(packet.destination.address)
    device, own = running.interfaces.get(sighting.interface), lab.topology.addresses(sighting.host, Family.IPV4)
    if device is None or not own or not (isinstance(source, IPv4Address) and isinstance(target, IPv4Address)):
        return ""
    # From Linux 6.14 on every refusal is EINVAL, so that what it was has to be told by others' answers.
    came, ask = (source, device.index), running.routes.refusal
    is_filtering = _is_filtering(running, sighting.interface)
    filtered = f"rp_filter: {source} is not to come in by {sighting.interface}"
    if code := ask(IPv4Address(own[0]), came):  # to the host itself: only the source can be wrong
        if running.routes.is_local(source):
            return f"martian: {source} is an address of its own"
        return filtered if is_filtering or code == errno.EXDEV else f"martian: {source} is no address to come from"
    owner = lab.topology.host_of(target)
    if running.host.proxy_mode is not None and (owner is None or owner == running.host):
        return ""  # its rules may have given it another destination before
    if code := ask(target, came):
        by_itself = ask(target)
        if by_itself in _ROUTES:
            return _ROUTES[by_itself]
        return filtered if is_filtering or code == errno.EXDEV else _ROUTES.get(code, "")
    return ""


def _is_filtering(running: RunningHost, interface: str) -> bool:
    """Check whether sources are validated at an interface: the larger of two settings counts (ip-sysctl.rst)."""
    names = ("all", interface)
    return any(running.namespace.sysctl(f"net/ipv4/conf/{name}/rp_filter") != "0" for name in names)
