# SPDX-License-Identifier: MIT
"""The walks of a trial's packets through the nodes of a running lab, as the kernel's own trace tells them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from lab.errors import LabError
from lab.evidence.packet import RST, SYN, UDP, Packet, is_error
from lab.evidence.traced import Told, walk_of
from lab.evidence.walk import Role, Walk, kin
from lab.fabric.loaded import Loaded, loaded_on
from lab.scenario import legacy
from lab.scenario.lost import Losses
from lab.scenario.tracer import Tracer, own_hook, removal
from lab.vocabulary import Backend, Family

if TYPE_CHECKING:
    from lab.fabric.lab import Lab
    from lab.scenario.recorder import Recorder

_MOST: Final = 12  # walks of one role; more of them tell nothing new


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
