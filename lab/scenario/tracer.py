# SPDX-License-Identifier: MIT
"""The kernel's own trace of the packets of one node, and the rules of the lab's own that ask for it.

A small table has packets traced, and marks where a walk begins, what conntrack calls the packet, and what it has become
when translation is done. It gives no verdicts, and so changes none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab import kubeapi
from lab.conntrack.nflog import REASON_GROUP
from lab.conntrack.witness import STATES, TABLE
from lab.evidence.packet import BARRIER_PORT, Ends, Packet, is_fragment
from lab.evidence.traced import Told, TraceEvent
from lab.evidence.walk import kin
from lab.netns.nft_chain import NftChains, text
from lab.netns.rtnetlink import VXLAN_PORT
from lab.scenario import legacy
from lab.wire.nftrace import Trace

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost

TRACE_TABLE: Final = "lab_trace"

#: The chains in which a packet begins on a device that has rules of others' at its ingress, or on a bridge's port.
_INGRESS, _BRIDGED = "begin_ingress", "begin_bridge_prerouting"

#: At ingress, which is before all of these: before anybody else's.
_EARLIEST: Final = -(2**31)
#: Before the reassembly of fragments (-400) and the tables raw (-300): nf_ip_hook_priorities.
_FIRST: Final = -500
#: Behind conntrack (-200) one after the other, and behind the translation of destinations (-100).
_JUDGED, _TRACKED, _TRANSLATED = -199, -198, -99
#: Behind whatever else there is, but for conntrack's own last step (INT_MAX).
_LAST: Final = 2**31 - 2

#: What a tunnel carries is read behind UDP's header (8 bytes), that of VXLAN (8, RFC 7348, 5) and that of Ethernet, of
#: which the last two bytes are the type. As nft writes it: the first bit, and how many.
_IPV4, _IPV6 = "@th,224,16 0x0800", "@th,224,16 0x86dd"
_BARRIERS: Final = tuple(
    f"{family} @th,{protocol},8 17 @th,{port},16 {BARRIER_PORT} accept"
    for family, protocol, ports in ((_IPV4, 312, (400, 416)), (_IPV6, 288, (560, 576)))
    for port in ports
)
#: ARP, IGMP, MLD (behind a header of options, RFC 3810, 5) and IPv6's neighbours and routers (RFC 4861): kernels send
#: them when their timers want. Of ICMPv6 what is below 128 are errors.
_NEIGHBOURS: Final = (
    "@th,224,16 0x0806 accept",
    f"{_IPV4} @th,312,8 2 accept",
    f"{_IPV6} @th,288,8 0 accept",
    f"{_IPV6} @th,288,8 58 @th,560,8 >= 128 accept",
)


def script(
    only: str = "",
    *,
    marks: bool = False,
    brief: bool = False,
    devices: Iterable[str] = (),
    is_bridged: bool = False,
) -> str:
    """Return the nftables script that has packets traced, but for the lab's own datagrams and what neighbours say.

    Neither of them is traced where a tunnel carries it: outside of one, nobody takes them for a trial's.

    :param only: the one state of conntrack, as nft names it, whose packets are traced, from where it has judged them
        on; empty for all packets.
    :param marks: log each packet where its walk begins, for what iptables-legacy logs of it.
    :param brief: of TCP trace SYN and SYN,ACK alone, beside others' downloads.
    :param devices: those at whose ingress packets are traced already (Linux 5.10 and later).
    :param is_bridged: trace what comes in by a bridge's port from there on.
    """
    # A rule that accepts ends its own chain alone, and makes one event of what would be three.
    wanted = f"{f'ct state {only} ' if only else ''}{_begun(marks=marks)}"
    barriers = (f"udp dport {BARRIER_PORT} return", f"udp sport {BARRIER_PORT} return")
    few = ("tcp flags & syn == 0 return",) if brief else ()
    own = (*barriers, f"udp dport {VXLAN_PORT} jump tunnel", *few)
    begin = (*own, wanted)
    tracked = tuple(f"ct state {state} accept" for state in STATES)
    chains = [
        _chain(f"{name}_{hook}", hook, priority, rules)
        for hook in ("prerouting", "output")
        for name, priority, rules in (
            ("begin", _JUDGED if only else _FIRST, begin),
            ("tracked", _TRACKED, tracked),
            ("translated", _TRANSLATED, ("accept",)),
        )
    ]
    chains += [_chain(f"end_{hook}", hook, _LAST, ("accept",)) for hook in ("input", "postrouting")]
    names = ", ".join(f'"{device}"' for device in sorted(devices))
    if names and not only:
        early = f"ingress devices = {{ {names} }}"
        chains.append(_chain(_INGRESS, early, _EARLIEST, (*own, _begun(marks=False))))
    tunnel = ("chain tunnel {", *_BARRIERS, *_NEIGHBOURS, "}")
    tables = [f"table inet {TRACE_TABLE} {{", *tunnel, *chains, "}", ""]
    if is_bridged and not only:
        ip = "meta protocol != { ip, ip6 } return"
        begun = _chain(_BRIDGED, "prerouting", _EARLIEST, (ip, *own, _begun(marks=False)))
        ended = _chain("end_bridge_postrouting", "postrouting", _LAST, ("accept",))
        tables += [f"table bridge {TRACE_TABLE} {{", *tunnel, begun, ended, "}", ""]
    return "\n".join(tables)


def _begun(*, marks: bool) -> str:
    """Return what a rule does with a packet that is to be traced."""
    mark = f'log prefix "{legacy.MARK}" group {REASON_GROUP} ' if marks else ""
    return f"{mark}meta nftrace set 1 accept"


def _script_between(ends: Iterable[Ends], chains: Iterable[str], *, marks: bool = False) -> str:
    """Return the nftables script that has every TCP packet between some ends traced besides.

    :param ends: source and destination.
    :param chains: where their walks begin, each with the family of its table.
    :param marks: as :func:`script` knows it.
    """
    lines = [
        f"insert rule {table} {TRACE_TABLE} {chain} {family} saddr {source.address} {family} daddr {target.address}"
        f" tcp sport {source.port} tcp dport {target.port}"
        f" {_begun(marks=marks and chain not in (_INGRESS, _BRIDGED))}"
        for source, target in ends
        for family in ("ip6" if ":" in source.address else "ip",)
        for table, chain in (one.split() for one in chains)
    ]
    return "\n".join((*lines, ""))


def _chain(name: str, hook: str, priority: int, rules: Iterable[str]) -> str:
    return "\n".join((f"chain {name} {{", f"type filter hook {hook} priority {priority}; policy accept;", *rules, "}"))


def own_hook(table: str, chain: str) -> str:
    """Return where a chain of the lab's instruments hangs; empty of anybody else's."""
    hook = chain.rpartition("_")[2]
    return {"local": "input"}.get(hook, hook) if table in (TRACE_TABLE, TABLE, kubeapi.TABLE) else ""


def _devices_with_rules(chains: NftChains, node: RunningHost) -> set[str]:
    """Return the devices that have rules of others' at their ingress."""
    tables = chains.devices("ingress").items()
    wanted = {name for table, names in tables if not table.startswith("lab_") for name in names}
    if not wanted:
        return set()
    with node.namespace.entered():
        names = [name for _index, name in socket.if_nameindex()]
    return {name for name in names if any(text(name).startswith(one) for one in wanted)}


@dataclass
class _Way:
    """What was told of one packet so far."""

    events: list[TraceEvent] = field(default_factory=list)
    state: str = ""
    end: Packet | None = None
    is_copy: bool = False
    is_early: bool = False

    @property
    def told(self) -> Told:
        """The same, as far as it is told."""
        return Told(tuple(self.events), self.state, self.end, self.is_copy, self.is_early)


class Tracer:
    """The trace of one node, from the moment on at which this is made.

    :param only: and ``marks`` and ``brief``: as :func:`script` knows them.
    :ivar chains: what answers questions about the node's nftables.
    """

    def __init__(self, node: RunningHost, *, only: str = "", marks: bool = False, brief: bool = False) -> None:
        self._found: list[_Way] = []
        self._current: dict[int, _Way] = {}  # by the kernel's numbers
        self._early: dict[tuple[object, ...], _Way] = {}  # those that have come to ingress alone
        self._trace = Trace(node.namespace)
        self.chains = NftChains(node.namespace)
        self._nft, self._marks = node.nft, marks
        devices, is_bridged = _devices_with_rules(self.chains, node), self.chains.has_bases("bridge")
        node.nft.run(script(only, marks=marks, brief=brief, devices=devices, is_bridged=is_bridged))
        early = [f"inet {_INGRESS}"] * bool(devices) + [f"bridge {_BRIDGED}"] * is_bridged
        self._firsts = ("inet begin_prerouting", "inet begin_output", *early)
        self._tables = ("inet", "bridge") if is_bridged and not only else ("inet",)
        self._states = {
            handle: state
            for hook in ("prerouting", "output")
            for handle, state in zip(self.chains.handles("inet", TRACE_TABLE, f"tracked_{hook}"), STATES, strict=True)
        }

    @property
    def lost(self) -> bool:
        """Whether the kernel had to throw some of it away."""
        return bool(self._trace.lost)

    def follow(self, ends: Iterable[Ends]) -> None:
        """Trace every TCP packet between some ends from here on, though of others' connections only the first are."""
        self._nft.run(_script_between(ends, self._firsts, marks=self._marks))

    def read(self) -> list[Told]:
        """Return what the kernel has told of each packet since it was last forgotten, in the order in which they came.

        Its numbers for packets are used again, so it is the lab's first chain that divides them. A bridge makes copies:
        those have other numbers, and the first of them goes on where the packet was. Of fragments the whole is told.
        """
        current = self._current
        for event in self._trace.read():
            if event.table == TRACE_TABLE and event.chain.startswith("begin_") and event.handle is not None:
                if is_fragment(event.headers):  # the whole begins behind its reassembly
                    current.pop(event.packet_id, None)
                    continue
                current[event.packet_id] = self._begun(event)
            elif event.packet_id not in current and event.headers:
                current[event.packet_id] = self._copy(event)
            if event.packet_id in current:
                self._take(event, current[event.packet_id])
        return [way.told for way in self._found]

    def forget(self) -> None:
        """Forget what was told by now, also of packets that are under way still, and losses until now."""
        self._trace.skip()
        self._found.clear()
        self._current.clear()
        self._early.clear()

    def remove(self) -> None:
        """Take the lab's rules that ask for the trace away."""
        self._nft.run("".join(f"delete table {family} {TRACE_TABLE}\n" for family in self._tables))

    def fileno(self) -> int:
        """Return the descriptor, readable when something was told."""
        return self._trace.fileno()

    def _begun(self, event: TraceEvent) -> _Way:
        """Return the way of a packet that comes to a first chain: a new one, or that which has begun at ingress.

        A bridge's port and the bridge have an ingress each, and the kernel another number for the packet there.
        """
        is_early = event.chain in (_INGRESS, _BRIDGED)
        kind = kin(event.packet) if (is_early or self._early) and event.packet else ()
        way = self._early.pop(kind, None)
        if way is None or way.told.is_over:
            way = _Way()
            self._found.append(way)
        way.is_early = is_early
        if is_early:
            self._early[kind] = way
        return way

    def _copy(self, event: TraceEvent) -> _Way:
        """Return the way of which a packet of another number is a part: one that has no end yet, or another one."""
        packet = event.packet
        found = self._found
        of_it = [way for way in found if packet and way.events[0].packet and kin(way.events[0].packet) == kin(packet)]
        unended = [way for way in of_it if way.end is None]
        if unended:
            return unended[-1]
        found.append(_Way(state=of_it[-1].state if of_it else "", is_copy=bool(of_it)))
        return found[-1]

    def _take(self, event: TraceEvent, way: _Way) -> None:
        way.events.append(event)
        if event.table == TRACE_TABLE:
            way.state = way.state or self._states.get(event.handle or 0, "")
            if event.chain.startswith("end_") and event.headers:
                way.end = event.packet

    def close(self) -> None:
        """Close the sockets."""
        self._trace.close()
        self.chains.close()
