# SPDX-License-Identifier: MIT
"""A running lab with its instruments: control of its nodes, and questions about what was seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import ClassVar, Unpack

from lab.evidence.entry import Entry
from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import TCP, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.evidence.timeline import Injected
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.scenario.barrier import Barrier
from lab.scenario.nodes import Nodes, extra_rules, spare_others
from lab.scenario.processor import one_processor
from lab.scenario.punctuality import Punctuality
from lab.scenario.recorder import Recorder, UnseenError
from lab.scenario.roles import Roles
from lab.scenario.seen import Which, has_come, has_flags, is_of, lost_where, matching, why_lost
from lab.scenario.tracing import Tracing
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import Injector


class Instrumented:
    """One lab with its instruments. Made inside the running event loop.

    :param behaviour: what this kernel does with packets out of the window, where it is known.
    :cvar sees_each: whether every packet is recorded, or only what conntrack does not like.
    """

    sees_each: ClassVar = True

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        self.lab = lab
        self.behaviour = behaviour
        self.roles = roles
        self.family = family
        self._punctuality = lab.keep(Punctuality())
        self._nodes = Nodes(lab, roles, family)
        self.recorder = Recorder(lab, self._nodes.names, each=self.sees_each)
        traced = (lab, self.recorder, self._nodes.names, family)
        self._tracing = Tracing(*traced, each=self.sees_each) if lab.traced else None
        self._nodes.open_tables()
        self._server, self._server_address = roles.servers[0]
        self._target = self._server_address
        self._own = roles.client_address  # the client, as it knows itself
        self._peer = roles.client_address  # the client, as the server knows it
        self._injected: Injected | None = None
        self._asked_for: Injected | None = None
        self._unrouted = ""  # why the packet to be judged went nowhere
        self._faults: list[str] = []
        self._barrier = Barrier(lab, roles, self._nodes, self.recorder, self._faults)
        self._injectors: dict[tuple[str, str], Injector] = {}
        self._order = lab.keep(ExitStack())
        if self.sees_each:  # what is sent at all ends then comes to the node in the order in which it was sent
            self._order.enter_context(one_processor())

    # --- the node -----------------------------------------------------------------------------------

    @property
    def node(self) -> RunningHost:
        """The node whose conntrack is followed."""
        return self.lab.hosts[self.roles.node]

    def set_node_sysctl(self, key: str, value: str | int, *, followed_alone: bool = False) -> None:
        """Set a sysctl of every node's namespace, named with slashes below ``/proc/sys``.

        :param followed_alone: only of the node whose conntrack is followed, as where it names one of its interfaces.
        :raises MissingError: this kernel has none of that name.
        """
        self._nodes.set_sysctl(key, value, followed_alone=followed_alone)

    def give_node(self, address: str) -> None:
        """Give the node an address that is somebody's already, as a second one of its own."""
        self.lab.undo(partial(self.node.give_back, address))
        self.node.take(address)

    @contextmanager
    def past_conntrack(self, port: int) -> Iterator[None]:
        """Have what goes to or comes from a TCP port pass the nodes' conntrack by, for as long as the block lasts."""
        with self._nodes.past_conntrack(port):
            yield

    @contextmanager
    def losing_from(self, host: str) -> Iterator[None]:
        """Lose the TCP segments that a host's own stack sends within the block; forged ones never pass its stack."""
        with extra_rules(self.lab.hosts[host], "output", "filter", "meta l4proto tcp drop"):
            yield

    def entry(self) -> Entry | None:
        """Return the connection's entry as the node has it now; None where it is gone.

        To a node behind another one the client talks to the server itself: the destination was rewritten before, and
        where that one masquerades, the source as well.
        """
        return self._entry_at(self.roles.node)

    def _entry_at(self, node: str) -> Entry | None:
        table = self._nodes.table(node)
        for source in dict.fromkeys((self._own, self._peer)):
            for destination in dict.fromkeys((self._target, self._server_address)):
                if entry := table.entry(TCP, source, destination):
                    return entry
        return None

    def forget_entry(self) -> None:
        """Delete the connection's entry at the node, as `conntrack -D` does.

        :raises UnseenError: there is none.
        """
        entry = self.entry()
        if entry is None:
            raise UnseenError(f"the node has no entry of {self._own} > {self._target} to forget")
        self._nodes.followed.delete(entry)

    def flush_entries(self) -> None:
        """Delete every entry of the node, as `conntrack -F` does.

        :raises InputError: some are others'.
        """
        spare_others(self.lab, "deletes every conntrack entry")
        self._nodes.followed.flush()

    def load(self, host: str, rules: str) -> None:
        """Load nftables rules of the case's own on a host, in a table of their own."""
        running = self.lab.hosts[host]
        self.lab.is_altered = True
        running.nft.run(rules)
        for table in re.findall(r"^table (\w+ \w+)", rules, re.MULTILINE):
            self.lab.undo(partial(running.nft.run, f"delete table {table}\n"))
        running.rules.append(rules)

    def fill_table(self, *, assured: bool = True) -> None:
        """Fill the node's table to the limit; called again, fill what has become free (2 us an entry, 256 bytes).

        :param assured: as by flows that go on; otherwise as by datagrams that nobody answers, which make room.
        :raises MissingError: see :class:`lab.conntrack.fill.Filler`.
        """
        self._nodes.fill_table(assured=assured)

    def statistics(self) -> dict[str, int]:
        """Return what the node's conntrack has counted so far, as ``conntrack -S`` shows it."""
        return self._nodes.statistics()

    def _injector(self, host: str, destination: str) -> Injector:
        """Return what puts forged packets for an address on the link that its sender's route names.

        :raises LabError: the sender has no route there.
        """
        if (host, destination) not in self._injectors:
            self._injectors[host, destination] = self.lab.injector(host, destination)
        return self._injectors[host, destination]

    # --- what was seen ------------------------------------------------------------------------------

    def seen(self, at: str, **which: Unpack[Which]) -> list[Sighting]:
        """Return the packets that were seen on a host's interfaces, without the barriers'.

        :param which: see :class:`lab.scenario.seen.Which`.
        """
        self.recorder.read()
        return [sighting for sighting in self.recorder.sightings if matching(sighting, at, which)]

    def dropped(self) -> int:
        """Return how many packets the node's rules have dropped so far for being INVALID."""
        return self._nodes.dropped(self.node) or 0

    def _judged_at_node(self) -> list[Judged]:
        return [judged for judged in self.recorder.judged if judged.host == self.roles.node]

    def judgements(self, *, source: SocketAddress | str, flags: str) -> list[Judgement]:
        """Return what the node's conntrack made of the TCP segments from an address that have all of these flags."""
        self.recorder.read()
        return [
            judged.judgement
            for judged in self._judged_at_node()
            if is_of(judged.packet.source, source) and has_flags(judged.packet, flags)
        ]

    def judgement(self) -> Judgement:
        """Return what conntrack made of the packet injected last.

        :raises UnseenError: the counting rules have not seen it.
        """
        likeness = self._to_judge().packet.likeness
        for judged in reversed(self._judged_at_node()):
            if judged.packet.likeness == likeness:
                return judged.judgement
        raise UnseenError("the counting rules saw nothing of the injected packet")

    def _to_judge(self) -> Injected:
        """Return the packet that the trial is about.

        :raises UnseenError: there is none so far.
        """
        if self._injected is None:
            raise UnseenError("there is no packet to judge yet")
        return self._injected

    def _judged_everywhere(self) -> list[Judged]:
        """Return what all nodes made of the packet to be judged."""
        likeness = self._to_judge().packet.likeness
        self.recorder.read()
        return [one for one in self.recorder.judged if one.packet.likeness == likeness]

    def judgements_of_nodes(self) -> dict[str, Judgement]:
        """Return what each node's conntrack made of the packet to be judged, but for nodes that never saw it."""
        return {one.host: one.judgement for one in self._judged_everywhere()}

    def passed(self, host: str, destination: str) -> tuple[str, ...]:
        """Return the nodes on the way from a host to an address."""
        return self._nodes.passed(host, destination)

    def lost_where(self, packet: Packet) -> str:
        """Return where a packet was seen last, and what the node there made of it."""
        return lost_where(packet, self.lab, self.recorder)

    def _why_lost(self, packet: Packet) -> str:
        return why_lost(packet, self.lab, self.recorder)

    def _ask_why_lost(self) -> None:
        """Ask why the packet to be judged was routed nowhere, where it was: once, while its routes are what they were.

        A barrier has gone behind it, so that it does not come any more.
        """
        if self._injected is not None and self._injected is not self._asked_for:
            self._asked_for = self._injected
            self._unrouted = "" if self._has_come(self._injected) else self._why_lost(self._injected.packet)

    def _has_come(self, injected: Injected) -> bool:
        return has_come(injected, self.recorder)

    # --- time and order -----------------------------------------------------------------------------

    async def barrier(self, server: str | None = None) -> None:
        """Send a datagram from the client to a server, back and there again, behind everything on the same path.

        See :class:`lab.scenario.barrier.Barrier`.

        :param server: one of the roles' servers, the one that is asked when None.
        """
        server = server or self._server
        address = self._server_address if server == self._server else dict(self.roles.servers)[server]
        await self._barrier.send(server, address)
        self._ask_why_lost()

    async def until(self, condition: Callable[[], bool], what: str, *, within: float | None = None) -> None:
        """Wait until ``condition`` holds, asked again whenever something was seen.

        :param within: as many seconds, ten or so when None.
        :raises UnseenError: it did not; says ``what`` was waited for.
        """
        await self.recorder.until(condition, what, within=within)
