# SPDX-License-Identifier: MIT
"""The walks of a trial's packets through the nodes of a running lab, as the kernel's own trace tells them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from lab.errors import LabError
from lab.evidence.packet import FRAGMENT, RST, SYN, UDP, Packet, is_error
from lab.evidence.traced import LEGACY, Told
from lab.evidence.walk import Role, Walk, kin
from lab.fabric.loaded import Loaded, loaded_on
from lab.scenario import legacy
from lab.scenario.lost import Losses
from lab.scenario.processor import visit_all_processors
from lab.scenario.tracer import Tracer, own_hook
from lab.scenario.walked import Met, walked
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.evidence.judgement import Judged
    from lab.fabric.lab import Lab
    from lab.scenario.recorder import Recorder

_MOST: Final = 12  # walks of one role; more of them tell nothing new

#: What packets are asked for, by what they are kin to; None for all.
_Own: TypeAlias = Collection[tuple[object, ...]] | None


class _Batch(NamedTuple):
    """What was told of packets at a node while its rules were the same."""

    told: list[Told]
    loaded: Loaded


class Tracing:
    """The traces of all nodes of a running lab.

    :param each: trace every packet; else those alone that are INVALID.
    """

    def __init__(self, lab: Lab, recorder: Recorder, nodes: Sequence[str], family: Family, *, each: bool) -> None:
        self._lab, self._recorder, self._family, self._each = lab, recorder, family, each
        only = "" if each else "invalid"
        self._tracers = {
            node: lab.keep(Tracer(lab.hosts[node], only=only, marks=legacy.is_told(lab.hosts[node], family)))
            for node in nodes
        }
        self._losses = {node: Losses(lab, node) for node in nodes}
        self._past: dict[str, list[_Batch]] = {node: [] for node in nodes}
        self._lossy: set[str] = set()
        for node in nodes:
            host, listener = lab.hosts[node], partial(self._read_ahead, node)
            host.before_change.append(listener)
            lab.undo(partial(host.before_change.remove, listener))
            lab.undo(self._tracers[node].remove)
        recorder.read()
        self._begun = len(recorder.judged)  # what is judged from here on is traced as well

    def walks(self, judged: Packet | None, own: _Own = None) -> tuple[tuple[Walk, ...], tuple[str, ...]]:
        """Return the walks of the packets that a trial is about, node by node, and in sentences what cannot be told.

        :param judged: the packet that it is about.
        :param own: leave out what is not kin to any of these.
        """
        walks, untold = self._walks(judged, own)
        if untold or any(walk.vanished for walk in walks):
            # What a timer has sent may be on its way still, on another processor.
            visit_all_processors()
            walks, untold = self._walks(judged, own)
        return tuple(walks), tuple(untold)

    def _walks(self, judged: Packet | None, own: _Own) -> tuple[list[Walk], list[str]]:
        """Do so with what was told by now."""
        self._recorder.read()
        known = self._recorder.judged[self._begun :]
        batches = {node: [*self._past[node], self._read(node)] for node in self._tracers}
        self._recorder.read()  # what iptables-legacy told of the same packets
        walks: list[Walk] = []
        untold = {f"the kernel lost a part of the trace at {node}": None for node in batches if node in self._lossy}
        for node, its in batches.items():
            told = [Met(one, batch.loaded) for batch in its for one in batch.told]
            walks += self._at(node, told, judged, own, untold)
            of_node = [one for one in known if one.host == node]
            for role in self._unheard(of_node, told, judged, own):
                untold[f"{role} at {node}: conntrack judged it there, and no trace tells of it"] = None
        return walks, list(untold)

    def _at(
        self, node: str, its: Sequence[Met], judged: Packet | None, own: _Own, untold: dict[str, None]
    ) -> Iterator[Walk]:
        """Yield the walks at a node, and note what cannot be told of it."""
        records = self._recorder.traced.get(node, [])
        why = [legacy.why_silent(node, loaded, records) for loaded in dict.fromkeys(one.loaded for one in its)]
        untold |= dict.fromkeys(filter(None, why))
        mine = [index for index, (told, _loaded) in enumerate(its) if own is None or kin(told.packet) in own]
        wanted = [(mine[at], role) for at, role in chosen([its[index].told.packet for index in mine], judged)]
        walks = walked(node, its, records, self._family, [index for index, _role in wanted])
        for (index, role), one in zip(wanted, walks, strict=True):
            if isinstance(one, LabError):
                untold[f"{role} at {node}: {one}"] = None
                continue
            walk = replace(one, role=role)
            again = any(kin(other.packet) == kin(walk.packet) for other, _loaded in its[index + 1 :])
            yield self._losses[node].told(replace(walk, unsent=not again and self._is_unsent(walk)))

    def _unheard(self, known: Sequence[Judged], its: Sequence[Met], judged: Packet | None, own: _Own) -> set[Role]:
        """Return what packets are in the trial that conntrack judged, and of which no trace tells."""
        told = {kin(one.packet) for one, _loaded in its}
        asked = (one.packet for one in known if self._each or one.state == "invalid")
        wanted = (packet for packet in asked if not packet.is_barrier and (own is None or kin(packet) in own))
        unheard = [packet for packet in wanted if kin(packet) not in told]
        return {role for _index, role in chosen(unheard, judged)} - {Role.OTHER}

    def _read(self, node: str) -> _Batch:
        """Read what was told of a node since its rules are the same."""
        host, tracer = self._lab.hosts[node], self._tracers[node]
        loaded = loaded_on(host, tracer.chains, self._family, self._lab.changes)
        batch = _Batch(tracer.read(), loaded)
        if tracer.lost:
            self._lossy.add(node)
        return batch

    def _read_ahead(self, node: str) -> None:
        """Read what was told before a node's rules become others, and what the rules are that it speaks of."""
        batch = self._read(node)
        if not all(told.is_over for told in batch.told):
            visit_all_processors()
            batch = self._read(node)
        self._tracers[node].forget()
        self._past[node].append(batch)
        events = (event for told in batch.told for event in told.events if not own_hook(event.table, event.chain))
        for event in events:
            batch.loaded.base(event.family, event.table, event.chain)
            for name in filter(None, (event.chain, event.target)):
                batch.loaded.chain(event.family, event.table, name)
        if batch.loaded.is_legacy:
            for table in batch.loaded.legacy_tables:
                batch.loaded.names(f"{LEGACY}{self._family.nft}", table)

    def _is_unsent(self, walk: Walk) -> bool:
        """Check whether a packet that came past every rule was not seen to leave."""
        if walk.left is None or walk.last_hook != "postrouting" or not self._recorder.sees_each:
            return False
        left = walk.left
        return not any(
            one.outgoing and one.host == walk.node and (kin(one.packet) == kin(left) or _is_part(one.packet, left))
            for one in self._recorder.sightings
        )


def _is_part(packet: Packet, whole: Packet) -> bool:
    """Check whether a packet may be a fragment of another one."""
    ends = (packet.source.address, packet.destination.address) == (whole.source.address, whole.destination.address)
    like = (packet.protocol, packet.identification) == (whole.protocol, whole.identification)
    return ends and (packet.protocol == FRAGMENT or (like and packet.payload_length < whole.payload_length))


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
