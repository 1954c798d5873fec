# SPDX-License-Identifier: MIT
"""The kernel's own trace of a trial's packets, on one node of a running lab.

A small table of the lab's own has packets traced, and marks where a walk begins, what conntrack calls the packet, and
what it has become when translation is done. It gives no verdicts, and so changes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from lab import kubeapi
from lab.conntrack.nflog import REASON_GROUP
from lab.conntrack.witness import STATES, TABLE
from lab.errors import LabError
from lab.evidence.packet import BARRIER_PORT, RST, SYN, UDP, Packet, is_error
from lab.evidence.traced import Told, TraceEvent, walk_of
from lab.evidence.walk import Role, Walk, kin
from lab.fabric.loaded import Loaded, loaded_on
from lab.netns.nft_chain import NftChains
from lab.scenario import legacy
from lab.scenario.lost import Losses
from lab.vocabulary import Backend, Family
from lab.wire.nftrace import Trace

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.fabric.lab import Lab
    from lab.scenario.recorder import Recorder

_TABLE: Final = "lab_trace"

#: Before the reassembly of fragments (-400) and the tables raw (-300): nf_ip_hook_priorities.
_FIRST: Final = -500
#: Behind conntrack (-200) one after the other, and behind the translation of destinations (-100).
_JUDGED, _TRACKED, _TRANSLATED = -199, -198, -99
#: Behind whatever else there is, but for conntrack's own last step (INT_MAX).
_LAST: Final = 2**31 - 2
_MOST: Final = 12  # walks of one role; more of them tell nothing new


def script(only: str = "", *, marks: bool = False, brief: bool = False) -> str:
    """Return the nftables script that has packets traced, but for the lab's own datagrams.

    :param only: the one state of conntrack, as nft names it, whose packets are traced, from where it has judged them
        on; empty for all packets.
    :param marks: log each packet where its walk begins, for what iptables-legacy logs of it.
    :param brief: of TCP trace SYN and SYN,ACK alone, beside others' downloads.
    """
    # A rule that accepts ends its own chain alone, and makes one event of what would be three.
    mark = f'log prefix "{legacy.MARK}" group {REASON_GROUP} ' if marks else ""
    wanted = f"{f'ct state {only} ' if only else ''}{mark}meta nftrace set 1 accept"
    spared = (f"udp dport {BARRIER_PORT} return", f"udp sport {BARRIER_PORT} return")
    begin = (*spared, *(("tcp flags & syn == 0 return",) if brief else ()), wanted)
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
    return "\n".join((f"table inet {_TABLE} {{", *chains, "}", ""))


def _chain(name: str, hook: str, priority: int, rules: Iterable[str]) -> str:
    return "\n".join((f"chain {name} {{", f"type filter hook {hook} priority {priority}; policy accept;", *rules, "}"))


def removal() -> str:
    """Return the nftables script that takes all of it away."""
    return f"delete table inet {_TABLE}\n"


def own_hook(table: str, chain: str) -> str:
    """Return where a chain of the lab's instruments hangs; empty of anybody else's."""
    hook = chain.rpartition("_")[2]
    return {"local": "input"}.get(hook, hook) if table in (_TABLE, TABLE, kubeapi.TABLE) else ""


@dataclass
class _Way:
    """What was told of one packet so far."""

    events: list[TraceEvent] = field(default_factory=list)
    state: str = ""
    end: Packet | None = None
    is_copy: bool = False


class Tracer:
    """The trace of one node, from the moment on at which this is made.

    :param only: and ``marks`` and ``brief``: as :func:`script` knows them.
    :ivar chains: what answers questions about the node's nftables.
    """

    def __init__(self, node: RunningHost, *, only: str = "", marks: bool = False, brief: bool = False) -> None:
        self._trace = Trace(node.namespace)
        self.chains = NftChains(node.namespace)
        node.nft.run(script(only, marks=marks, brief=brief))
        self._states = {
            handle: state
            for hook in ("prerouting", "output")
            for handle, state in zip(self.chains.handles("inet", _TABLE, f"tracked_{hook}"), STATES, strict=True)
        }

    @property
    def lost(self) -> bool:
        """Whether the kernel had to throw some of it away."""
        return self._trace.lost

    def read(self) -> list[Told]:
        """Return what the kernel has told of each packet, in the order in which they came.

        Its numbers for packets are used again, so it is the lab's first chain that divides them. A bridge makes copies:
        those have other numbers, and the first of them goes on where the packet was.
        """
        found: list[_Way] = []
        current: dict[int, _Way] = {}
        for event in self._trace.read():
            if event.table == _TABLE and event.chain.startswith("begin_") and event.handle is not None:
                current[event.packet_id] = _Way()
                found.append(current[event.packet_id])
            elif event.packet_id not in current and event.headers:
                current[event.packet_id] = self._copy(event, found)
            if event.packet_id in current:
                self._take(event, current[event.packet_id])
        return [Told(tuple(way.events), way.state, way.end, way.is_copy) for way in found]

    def fileno(self) -> int:
        """Return the descriptor, readable when something was told."""
        return self._trace.fileno()

    def skip(self) -> None:
        """Forget what the kernel has told until now."""
        self._trace.skip()

    def _copy(self, event: TraceEvent, found: list[_Way]) -> _Way:
        """Return the way of which a packet of another number is a part: one that has no end yet, or another one."""
        packet = event.packet
        of_it = [way for way in found if packet and way.events[0].packet and kin(way.events[0].packet) == kin(packet)]
        unended = [way for way in of_it if way.end is None]
        if unended:
            return unended[-1]
        found.append(_Way(state=of_it[-1].state if of_it else "", is_copy=True))
        return found[-1]

    def _take(self, event: TraceEvent, way: _Way) -> None:
        way.events.append(event)
        if event.table == _TABLE:
            way.state = way.state or self._states.get(event.handle or 0, "")
            if event.chain.startswith("end_") and event.headers:
                way.end = event.packet

    def close(self) -> None:
        """Close the sockets."""
        self._trace.close()
        self.chains.close()


class _Batch(NamedTuple):
    """What was told of packets at a node while its rules were the same."""

    node: str
    told: list[Told]
    loaded: Loaded


class Tracing:
    """The traces of all nodes of a running lab.

    :param each: trace every packet; else those alone that are INVALID.
    """

    def __init__(self, lab: Lab, recorder: Recorder, nodes: Sequence[str], family: Family, *, each: bool) -> None:
        self._lab, self._recorder, self._family = lab, recorder, family
        only = "" if each else "invalid"
        self._tracers = {
            node: lab.keep(Tracer(lab.hosts[node], only=only, marks=lab.hosts[node].host.backend is Backend.LEGACY))
            for node in nodes
        }
        self._losses = {node: Losses(lab, node) for node in nodes}
        self._batches: list[_Batch] = []
        for node in nodes:
            host, listener = lab.hosts[node], partial(self._read_ahead, node)
            host.before_change.append(listener)
            lab.undo(partial(host.before_change.remove, listener))
            lab.undo(partial(host.nft.run, removal()))

    def walks(
        self, judged: Packet | None, own: Collection[tuple[object, ...]] | None = None
    ) -> tuple[tuple[Walk, ...], tuple[str, ...]]:
        """Return the walks of the packets that a trial is about, node by node, and in sentences what cannot be told.

        :param judged: the packet that it is about.
        :param own: leave out what is not kin to any of these.
        """
        for node in self._tracers:
            self._read(node)
        walks: list[Walk] = []
        untold = [f"the kernel lost a part of the trace at {node}" for node, one in self._tracers.items() if one.lost]
        for node in self._tracers:
            its = [(told, batch.loaded) for batch in self._batches if batch.node == node for told in batch.told]
            is_legacy = bool(its) and its[0][1].is_legacy
            records = self._recorder.traced.get(node, []) if is_legacy else []
            untold += filter(None, [legacy.why_silent(node, records) if is_legacy else ""])
            if its and self._lab.has_others:
                untold += filter(None, [legacy.unread(self._lab.hosts[node], its[0][1], self._family)])
            of_packets = iter(legacy.by_packet(records))
            of_each = [[] if told.is_copy else next(of_packets, []) for told, _loaded in its]
            mine = [n for n, (told, _) in enumerate(its) if own is None or kin(told.packet) in own]
            for place, role in chosen([its[n][0].packet for n in mine], judged):
                index = mine[place]
                told, loaded = its[index]
                try:
                    walk = walk_of(node, legacy.whole(told, of_each[index], loaded, self._family), loaded, own_hook)
                except LabError as error:
                    untold.append(f"{role} at {node}: {error}")
                    continue
                again = any(kin(other.packet) == kin(walk.packet) for other, _loaded in its[index + 1 :])
                walk = replace(walk, role=role, unsent=not again and self._is_unsent(walk))
                walks.append(self._losses[node].told(walk))
        return tuple(walks), tuple(dict.fromkeys(untold))

    def _read(self, node: str) -> _Batch:
        """Read what was told of a node since."""
        host, tracer = self._lab.hosts[node], self._tracers[node]
        loaded = loaded_on(host, tracer.chains, self._family, self._lab.changes)
        self._batches.append(_Batch(node, tracer.read(), loaded))
        return self._batches[-1]

    def _read_ahead(self, node: str) -> None:
        """Read what was told before a node's rules become others, and what the rules are that it speaks of."""
        batch = self._read(node)
        events = (event for told in batch.told for event in told.events if not own_hook(event.table, event.chain))
        for event in events:
            batch.loaded.base(event.family, event.table, event.chain)
            for name in filter(None, (event.chain, event.target)):
                batch.loaded.chain(event.family, event.table, name)
        for table in ("nat", "filter") if batch.loaded.is_legacy else ():
            batch.loaded.names(table)

    def _is_unsent(self, walk: Walk) -> bool:
        """Check whether a packet that came past every rule was not seen to leave."""
        if walk.left is None or walk.last_hook != "postrouting" or not self._recorder.sees_each:
            return False
        left = kin(walk.left)
        return not any(
            one.outgoing and one.host == walk.node and kin(one.packet) == left for one in self._recorder.sightings
        )


def chosen(packets: Sequence[Packet], judged: Packet | None) -> list[tuple[int, Role]]:
    """Return which of a node's packets a trial is about, by their place: of many of one role the first.

    :param judged: the packet that was judged; datagrams and ICMP errors are chosen as well.
    """
    found: list[tuple[int, Role]] = []
    kind = kin(judged) if judged else None
    for index, packet in enumerate(packets):
        flags = packet.tcp.flags if packet.tcp else 0
        if kin(packet) == kind:
            role = Role.JUDGED
        elif flags & RST:
            role = Role.RESET
        elif flags & SYN:
            role = Role.HANDSHAKE
        elif packet.protocol == UDP or is_error(packet):
            role = Role.OTHER
        else:
            continue
        if sum(one is role for _index, one in found) < _MOST:
            found.append((index, role))
    return found
