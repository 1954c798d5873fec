# SPDX-License-Identifier: MIT
"""Why a host took a packet in and sent neither it nor an answer, though no rule dropped it, by the kernel's own word.

Such a packet is dropped without an ICMP error where the route is a blackhole or its source is not believed, and
martians are counted nowhere that is a namespace's own. So the kernel is asked how it would route one like it (``ip
route get ... iif``), by rules and tables and with the source's validation (fib_validate_source,
net/ipv4/fib_frontend.c); IPv6 validates no source. Of what it would route it is asked whether the next neighbour has
answered: until then a packet waits, and then it is dropped (neigh_timer_handler, net/core/neighbour.c). Of a packet
that came where it was to go the same is asked about the way back.
"""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import Final

from lab.evidence.packet import Packet
from lab.evidence.reach import PROTOCOLS
from lab.evidence.sighting import Sighting
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.kubeproxy import MINORS, ProxyOptions
from lab.kubeproxy.services import service_ports
from lab.netns.links import link, neighbour_entry
from lab.netns.rtnetlink import Routed
from lab.topology.values import IPAddress
from lab.vocabulary import Family

_ROUTES: Final = {
    errno.EHOSTUNREACH: "an unreachable route",
    errno.ENETUNREACH: "no route",
    errno.EACCES: "a prohibited route",
    errno.EINVAL: "a blackhole",
}


def why_unrouted(lab: Lab, sighting: Sighting) -> str:
    """Return why a host sends nowhere what came in to it; empty where that is not why it went no further.

    A node may have translated the destination before: then every endpoint that it may have chosen must have the same.
    Of what is for the host itself it is why no answer can leave.
    """
    running, packet = lab.hosts[sighting.host], sighting.packet
    interface = _routed_at(lab, sighting)
    device, source = running.interfaces.get(interface), ip_address(packet.source.address)
    if device is None:
        return ""
    came = (source, device.index)
    if why := _unbelieved(lab, running, interface, came):
        return why
    targets = _targets(lab, running, packet)
    asked = ip_address(packet.destination.address)
    local = [target for target in targets if running.routes.is_local(target)]
    if local:
        return _no_way_back(running, asked, source) if local == [asked] == list(targets) else ""
    if targets and (why := _not_forwarding(running, interface, source)):
        return why
    reasons = {_not_sent(running, target, interface, came) for target in targets}
    if len(reasons) != 1:
        return ""
    translated = "" if asked in targets else f", to {' or '.join(map(str, targets))}"
    why = reasons.pop()
    return why and f"{why}{translated}"


def _no_way_back(running: RunningHost, own: IPAddress, peer: IPAddress) -> str:
    """Return why a host can send nothing to whom it would answer; empty where it can."""
    routed = running.routes.routed(peer, source=own)
    if routed.refusal:
        why = _ROUTES.get(routed.refusal, "")
        return why and f"{why} from {running.name} to {peer}"
    return _not_delivered(running, routed)


def _not_forwarding(running: RunningHost, interface: str, source: IPAddress) -> str:
    """Return by which setting a host sends nothing on that came in by an interface; empty where it does.

    Of IPv4 the interface's own counts (ip_route_input_slow, net/ipv4/route.c), of IPv6 that of all and, from Linux 6.17
    on, one by which the interface has it all the same (ip6_forward, net/ipv6/ip6_output.c).
    """
    name = interface.replace(".", "/")
    if source.version == 4:
        every, own = "net/ipv4/ip_forward", f"net/ipv4/conf/{name}/forwarding"
        if running.namespace.sysctl(own) != "0":
            return ""
        key = every if running.namespace.sysctl(every) == "0" else f"net.ipv4.conf.{interface}.forwarding"
    else:
        key = "net/ipv6/conf/all/forwarding"
        if running.namespace.sysctl(key) != "0" or _is_forced(running, name):
            return ""
    return f"{running.name} does not forward: {key.replace('/', '.')} is 0"


def _is_forced(running: RunningHost, name: str) -> bool:
    try:
        return running.namespace.sysctl(f"net/ipv6/conf/{name}/force_forwarding") != "0"
    except FileNotFoundError:
        return False


def _routed_at(lab: Lab, sighting: Sighting) -> str:
    """Return the interface by which a packet comes to be routed: of a port that is its bridge (br_input.c)."""
    ends = lab.topology.ends(sighting.host)
    return next((end.bridge for end in ends if end.interface == sighting.interface and end.bridge), sighting.interface)


def _unbelieved(lab: Lab, running: RunningHost, interface: str, came: tuple[IPAddress, int]) -> str:
    """Return why a source is not believed wherever its packet is to go; empty where it is."""
    source, _index = came
    addresses = lab.topology.addresses(running.name, Family.of(source)) if source.version == 4 else ()
    own = next(filter(running.routes.is_local, addresses), None)  # those of an interface that is down are not
    if own is None:
        return ""
    code = running.routes.routed(own, came).refusal  # to the host itself: only the source can be wrong
    if not code:
        return ""
    if running.routes.is_local(source):
        return f"martian: {source} is an address of its own"
    # From Linux 6.14 on every refusal is EINVAL, so that what it was has to be told by others' answers.
    if _is_filtering(running, interface) or code == errno.EXDEV:
        return _filtered(source, interface)
    return f"martian: {source} is no address to come from"


def _targets(lab: Lab, running: RunningHost, packet: Packet) -> tuple[IPAddress, ...]:
    """Return whom a packet may be for when it is routed: on a node the endpoints of the Service that it asks."""
    asked, number = ip_address(packet.destination.address), packet.destination.port
    owner = lab.topology.host_of(asked)
    if running.host.proxy_mode is None or (owner is not None and owner != running.host):
        return (asked,)
    options = ProxyOptions(Family.of(asked), MINORS[-1])
    found = [
        ip_address(endpoint.address)
        for port in service_ports(lab.services, lab.endpoint_slices, options)
        if PROTOCOLS[port.protocol] == packet.protocol
        and (
            (port.port == number and str(asked) in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips))
            or (port.node_port == number and owner is not None)
        )
        for endpoint in port.endpoints.reachable
    ]
    if not found and running.host.given is None:
        return (asked,)  # no Service has it; of a real node's rules nobody knows what they make of it
    return tuple(dict.fromkeys(found))


def _not_sent(running: RunningHost, target: IPAddress, interface: str, came: tuple[IPAddress, int]) -> str:
    """Return why a host sends a packet of a source that it believes not to an address; empty where it does."""
    routed = running.routes.routed(target, came)
    if routed.refusal:
        # EINVAL and EXDEV may mean the source as well; what else there is, is the route's, a policy rule's among them.
        by_itself = routed.refusal
        if by_itself in (errno.EINVAL, errno.EXDEV):
            by_itself = running.routes.routed(target).refusal
        if by_itself in _ROUTES:
            return _ROUTES[by_itself]
        if target.version == 4 and (_is_filtering(running, interface) or routed.refusal == errno.EXDEV):
            return _filtered(came[0], interface)
        return _ROUTES.get(routed.refusal, "")
    return _not_delivered(running, routed)


def _not_delivered(running: RunningHost, routed: Routed) -> str:
    """Return why what is routed does not leave: for its interface or the next neighbour; empty where it does."""
    name = next((name for name, end in running.interfaces.items() if end.index == routed.index), "")
    if routed.gateway is None or not name:
        return ""
    if fault := link(running.routes, routed.index).fault:
        return f"the interface {name} of {running.name} {fault}"
    entry = neighbour_entry(running.routes, routed.index, routed.gateway)
    return f"no neighbour: {routed.gateway} does not answer at {name}" if entry and entry.unanswered else ""


def _filtered(source: IPAddress, interface: str) -> str:
    return f"rp_filter: {source} is not to come in by {interface}"


def _is_filtering(running: RunningHost, interface: str) -> bool:
    """Check whether sources are validated at an interface: the larger of two settings counts (ip-sysctl.rst)."""
    names = ("all", interface.replace(".", "/"))
    return any(running.namespace.sysctl(f"net/ipv4/conf/{name}/rp_filter") != "0" for name in names)
