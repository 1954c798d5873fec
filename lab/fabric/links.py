# SPDX-License-Identifier: MIT
"""The links of a lab: veth pairs, the bridges whose ports some of their ends are, addresses, neighbours and routes.

A link of more than two ends is a switch of its own: a bridge without rules or addresses, in a namespace that is no host
of the lab. It knows who is behind each of its ports, so that it floods nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from lab.errors import LabError, MissingError
from lab.fabric.host import RunningHost
from lab.netns.ethtool import compute_checksums
from lab.netns.reaper import Closable
from lab.netns.rtnetlink import (
    LOOPBACK_INDEX,
    Message,
    RuleMatch,
    VethEnd,
    address,
    behind_port,
    bridge,
    hairpin,
    link_up,
    neighbour,
    port,
    route,
    rule,
    veth,
    vxlan,
)
from lab.topology.keys import mark_and_mask
from lab.topology.model import End, Host, Link, Topology
from lab.topology.ways import underlay
from lab.vocabulary import Family

_ROUNDS: Final = 100_000  # questions for a link's state before giving up; the first is answered with "up"
_BRIDGE_CALLS: Final = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


_SWITCH: Final = "switch"
_FIRST_RULE: Final = 1000  # priority: behind the local table, before the main one


def build_links(
    topology: Topology,
    hosts: Mapping[str, RunningHost],
    families: Sequence[Family],
    keep: Callable[[Closable], object],
) -> None:
    """Build all links, and return when every one carries packets and every address takes them.

    :param keep: is given what has to be closed for the links to go, besides the hosts.
    :raises MissingError: the kernel lacks what a bridge wants.
    :raises LabError: a link did not come up.
    """
    builder = _Links(topology, hosts, families, keep)
    builder.build()
    for running in (*hosts.values(), *builder.switches.values()):
        for interface in running.interfaces.values():
            _await(partial(running.routes.is_running, interface.index), f"{running.name}: {interface.name}")
    for running in hosts.values():
        for own in topology.addresses(running.name, Family.IPV6) if Family.IPV6 in families else ():
            _await(partial(running.routes.is_local, own), f"{running.name}: {own}")


class _Links:
    """The messages that make them, a batch a host: first what makes links, then what is on them."""

    def __init__(
        self,
        topology: Topology,
        hosts: Mapping[str, RunningHost],
        families: Sequence[Family],
        keep: Callable[[Closable], object],
    ) -> None:
        self._topology, self._hosts, self._families, self._keep = topology, hosts, families, keep
        self.switches: dict[Link, RunningHost] = {}
        self._first: dict[str, list[Message]] = {name: [link_up(LOOPBACK_INDEX, f"{name}: lo")] for name in hosts}
        self._second: dict[str, list[Message]] = {name: [] for name in hosts}

    def build(self) -> None:
        """Make all of them."""
        for link in self._topology.links:
            devices = [self._hosts[end.host].add_interface(end.interface, end.mtu) for end in link.ends]
            if link.is_shared:
                self._share(link, devices)
            elif not link.is_tunnel:
                there = self._hosts[link.ends[1].host]
                self._first[link.ends[0].host].append(veth(devices[0], devices[1], there.namespace))
        for host in self._topology.hosts:
            self._bridges(host)
        for link in self._topology.links:
            for end, other in zip(link.ends, (*link.ends[1:], link.ends[0]), strict=True):
                if end.vxlan is not None:
                    self._second[end.host].append(self._tunnel(end, end.vxlan, other))
                self._end(end)
        for host in self._topology.hosts:
            own = (entry for entry in host.routes if Family.of(entry.via) in self._families)
            messages = self._second[host.name]
            messages += [route(entry.network, entry.via, host.name, entry.table) for entry in own]
            closed = (entry for entry in host.closed_routes if Family.of(entry.to) in self._families)
            messages += [route(entry.to, entry.kind, host.name, entry.table) for entry in closed]
            for number, one in enumerate(host.rules, _FIRST_RULE):
                match = RuleMatch(one.source, one.to, one.iif, *mark_and_mask(one.fwmark or "0x0/0x0"))
                mine = (family for family in one.families if family in self._families)
                messages += [rule(family.version, match, one.table, number, host.name) for family in mine]
        for batch in (self._first, self._second):
            for name, messages in batch.items():
                if messages:
                    self._hosts[name].routes.apply(messages)
            for link, running in self.switches.items() if batch is self._first else ():
                running.routes.apply(self._ports(link, running))

        for end in (end for link in self._topology.links for end in link.ends if not end.tx_checksum):
            compute_checksums(self._hosts[end.host].namespace, end.interface)

    def _share(self, link: Link, devices: Sequence[VethEnd]) -> None:
        """Make a switch, and a veth pair from each end to a port of it. A port takes what the largest end sends."""
        running = self.switches[link] = self._switch(link)
        _have_rules_see(running, wanted=False)
        running.routes.apply([bridge(running.add_interface(_SWITCH), promiscuous=False)])
        largest = max((end.mtu for end in link.ends if end.mtu), default=None)
        for end, device in zip(link.ends, devices, strict=True):
            far = running.add_interface(f"port{len(running.interfaces)}", largest)
            self._first[end.host].append(veth(device, far, running.namespace))

    def _switch(self, link: Link) -> RunningHost:
        names = ", ".join(f"{end.host} {end.interface}" for end in link.ends)
        running = RunningHost(Host(f"the segment of {names}"), len(self._hosts) + len(self.switches))
        for part in running.parts():
            self._keep(part)
        if Path("/proc/sys/net/ipv6").exists():
            running.namespace.set_sysctls({"net/ipv6/conf/default/disable_ipv6": 1})
        return running

    def _ports(self, link: Link, running: RunningHost) -> list[Message]:
        """Have the ends of a switch's links be its ports, and tell it who is behind each of them."""
        switch, *ports = running.interfaces.values()
        messages = [link_up(switch.index, running.name)]
        for end, own in zip(link.ends, ports, strict=True):
            messages += [port(own.index, switch.index, running.name), link_up(own.index, running.name)]
            behind = (other for one in self._topology.segments.ports(end) if one != end for other in self._beside(one))
            macs = dict.fromkeys(self._hosts[one.host].device(one).mac for one in (end, *behind))
            messages += [behind_port(own.index, mac, running.name) for mac in macs]
        return messages

    def _beside(self, end: End) -> Sequence[End]:
        return self._topology.neighbours(end)

    def _bridges(self, host: Host) -> None:
        ports: dict[str, End] = {}
        for end in self._topology.ends(host.name):
            if end.bridge:
                ports.setdefault(end.bridge, end)
        if ports:
            _have_rules_see(self._hosts[host.name], wanted=host.sees_bridged)
        for name, end in ports.items():
            device = self._hosts[host.name].add_interface(name)
            self._first[host.name].append(bridge(device, promiscuous=host.promiscuous))
            self._second[host.name] += [link_up(device.index, name), *self._addresses(device, end)]

    def _end(self, end: End) -> None:
        running, messages = self._hosts[end.host], self._second[end.host]
        own = running.interfaces[end.interface]
        place, device = f"{end.host}: {end.interface}", running.device(end)
        if end.bridge:
            messages.append(port(own.index, device.index, place))
            messages += [hairpin(own.index, place)] if running.host.hairpin else []
        messages.append(link_up(own.index, place))
        if not end.bridge:
            messages += self._addresses(own, end)
        known = {its.ip: other for other in self._beside(end) for its in other.addresses}
        for address_of, other in known.items():
            if Family.of(address_of) in self._families:
                mac = self._hosts[other.host].device(other).mac
                messages.append(neighbour(device.index, address_of, mac, place))

    def _tunnel(self, end: End, number: int, other: End) -> Message:
        running, by = self._hosts[end.host], underlay(self._topology, end.host, other.host, self._families[0])
        assert by is not None  # the topology's rules see to that
        index = running.device(by.end).index
        return vxlan(running.interfaces[end.interface], number, index, by.local, by.remote)

    def _addresses(self, device: VethEnd, end: End) -> Iterable[Message]:
        own = (one for one in end.addresses if Family.of(one) in self._families)
        return [address(device.index, one, f"{end.host}: {device.name}") for one in own]


def _have_rules_see(running: RunningHost, *, wanted: bool) -> None:
    """Set whether a host's rules see what its bridges pass on.

    :raises MissingError: they are to, and cannot: br_netfilter is not there.
    """
    try:
        running.namespace.set_sysctls(dict.fromkeys(_BRIDGE_CALLS, int(wanted)))
    except FileNotFoundError:
        if wanted:
            cure = "modprobe br_netfilter, or write bridge-nf-call-iptables: false"
            raise MissingError("rules do not see what a bridge passes on", cure) from None


def set_own_sysctls(running: RunningHost) -> None:
    """Set the sysctls that a topology gives a host.

    :raises MissingError: this kernel has none of that name.
    :raises LabError: it takes no such value.
    """
    for key, value in running.host.sysctls:
        try:
            running.namespace.set_sysctls({key: value})
        except FileNotFoundError:
            what = f"{running.name}: this kernel has no sysctl {key}"
            raise MissingError(what, "load the module that brings it, or leave it away") from None
        except OSError as error:
            raise LabError(f"{running.name}: the kernel takes no {key}={value}: {error.strerror}") from error


def _await(is_up: Callable[[], bool], what: str) -> None:
    for _ in range(_ROUNDS):
        if is_up():
            return
        os.sched_yield()
    raise LabError(f"{what} did not come up")
