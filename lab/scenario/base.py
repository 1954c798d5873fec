"""A running lab with its instruments: what every scenario has, whatever the scenario on it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import ClassVar, Final

from lab.conntrack.fill import Filler
from lab.conntrack.netlink import ConntrackTable, creation
from lab.conntrack.witness import counters
from lab.errors import LabError, MissingError, raise_if_of_machine
from lab.evidence.entry import Entry
from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import BARRIER_PORT, TCP, UDP, Packet, SocketAddress, flags_of
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Check, Counters, Injected, Timeline, end_of_way
from lab.fabric.dropped import counted_drops, dropped_as_invalid
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.netns import bound
from lab.scenario.punctuality import Punctuality
from lab.scenario.recorder import Recorder, UnseenError
from lab.scenario.roles import Roles
from lab.topology.ways import way
from lab.traffic.tcp import datagram_socket
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import Injector

_ROUNDS: Final = 10  # retransmissions come further and further apart
_AN_HOUR: Final = 3600  # seconds; longer than any trial


class RefusedError(LabError):
    """The client's connection was refused or had no way: the case ends before it began."""


class HalfOpenError(LabError):
    """The client's end is connected and no server's is: the case ends before it began, and that is its outcome."""


class Scenario:
    """One lab with its instruments. Made inside the running event loop.

    The words that begin with ``expect`` hold what was seen against what a case is about. One that does not hold makes
    the trial fail, whatever its outcome; it never ends the steps.

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
        others = (node.name for node in lab.topology.nodes if node.name != roles.node)
        self._nodes = (roles.node, *others)
        self.recorder = Recorder(lab, self._nodes, each=self.sees_each)
        self._tables = [lab.keep(ConntrackTable(lab.hosts[node].namespace)) for node in self._nodes]
        self._server, self._server_address = roles.servers[0]
        self._target = self._server_address
        self._injected: Injected | None = None
        self._refusal: str | None = None
        self._trace = ""
        self._without_route = False
        self._complete = False
        self._faults: list[str] = []
        self._checks: list[Check] = []
        self._findings: list[str] = []
        self._standstill: tuple[str, ...] = ()
        self._peer = roles.client_address  # the client, as the server knows it
        self._barriers: Counter[str] = Counter()
        self._barrier_legs: Counter[str] = Counter()  # how often each node should have seen a barrier's datagram
        self._injectors: dict[tuple[str, str], Injector] = {}
        self._filler: Filler | None = None
        self._order = lab.keep(ExitStack())
        if self.sees_each:  # what is sent at all ends then comes to the node in the order in which it was sent
            self._order.enter_context(one_processor())

    # --- the node -----------------------------------------------------------------------------------

    @property
    def node(self) -> RunningHost:
        """The node whose conntrack is followed."""
        return self.lab.hosts[self.roles.node]

    def set_node_sysctl(self, key: str, value: str | int) -> None:
        """Set a sysctl of every node's namespace, named with slashes below ``/proc/sys``.

        :raises MissingError: this kernel has none of that name.
        """
        try:
            for node in self._nodes:
                self.lab.hosts[node].namespace.set_sysctls({key: value})
        except FileNotFoundError:
            raise MissingError(f"this kernel has no sysctl {key}", "boot a kernel that has it") from None

    @contextmanager
    def past_conntrack(self, port: int) -> Iterator[None]:
        """Have what goes to or comes from a TCP port pass the nodes' conntrack by, for as long as the block lasts."""
        rules = f"tcp dport {port} notrack\ntcp sport {port} notrack"
        with ExitStack() as given:
            for node in self._nodes:
                given.enter_context(_rules(self.lab.hosts[node], "prerouting", "raw", rules))
            yield

    @contextmanager
    def losing_from(self, host: str) -> Iterator[None]:
        """Lose the TCP segments that a host's own stack sends within the block; forged ones never pass its stack."""
        with _rules(self.lab.hosts[host], "output", "filter", "meta l4proto tcp drop"):
            yield

    def entry(self) -> Entry | None:
        """Return the connection's entry as the node has it now; None where it is gone.

        To a node behind another one the client talks to the server itself: the destination was rewritten before, and
        where that one masquerades, the source as well.
        """
        return self._entry_at(self.roles.node)

    def _translated(self, packet: Packet) -> tuple[SocketAddress, SocketAddress]:
        """Return source and destination of a client's packet as its server should see them, by the nodes' entries."""
        source, destination = packet.source, packet.destination
        hosts = (*way(self.lab.topology, self.roles.client, destination.address), *self._nodes)
        for node in dict.fromkeys(hosts):
            if node in self._nodes and (entry := self._table(node).entry(packet.protocol, source, destination)):
                destination, source = entry.reply
        return source, destination

    def _table(self, node: str) -> ConntrackTable:
        return self._tables[self._nodes.index(node)]

    def _entry_at(self, node: str) -> Entry | None:
        table = self._table(node)
        for source in dict.fromkeys((self.roles.client_address, self._peer)):
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
            raise UnseenError(f"the node has no entry of {self.roles.client_address} > {self._target} to forget")
        self._tables[0].delete(entry)

    def flush_entries(self) -> None:
        """Delete every entry of the node, as `conntrack -F` does."""
        self._tables[0].flush()

    def load(self, host: str, rules: str) -> None:
        """Load nftables rules of the case's own on a host, in a table of their own."""
        running = self.lab.hosts[host]
        running.nft.run(rules)
        running.rules.append(rules)

    def fill_table(self, *, assured: bool = True) -> None:
        """Fill the node's table to the limit; said again, fill what has become free (2 us an entry, 256 bytes).

        A full table refuses the barriers' datagrams as it does others, so they get entries of their own beforehand.

        :param assured: as by flows that go on; otherwise as by datagrams that nobody answers, which make room.
        :raises MissingError: see :class:`lab.conntrack.fill.Filler`.
        """
        if self._filler is None:
            self._filler = self.lab.keep(Filler(self.node.namespace, assured=assured))
            client = SocketAddress(self.roles.client_address.address, BARRIER_PORT)
            for _host, address in self.roles.servers:
                server = SocketAddress(address.address, BARRIER_PORT)
                if before := self._tables[0].entry(UDP, client, server):
                    self._tables[0].delete(before)
                self._tables[0].create(creation(UDP, client, server, assured=True, timeout=_AN_HOUR))
        self._filler.fill()

    def statistics(self) -> dict[str, int]:
        """Return what the node's conntrack has counted so far, as ``conntrack -S`` shows it."""
        return self._tables[0].statistics()

    # --- what was seen ------------------------------------------------------------------------------

    def seen(
        self,
        at: str,
        *,
        source: SocketAddress | str | None = None,
        destination: SocketAddress | str | None = None,
        flags: str = "",
        outgoing: bool | None = None,
    ) -> list[Sighting]:
        """Return the packets that were seen on a host's interfaces, without the barriers'.

        :param source: and ``destination``: only those with this address, or address and port.
        :param flags: only TCP segments that have all of these, written as scapy does: "SA".
        :param outgoing: only those that left the host, or only those that came to it.
        """
        self.recorder.read()
        wanted = flags_of(flags)
        return [
            sighting
            for sighting in self.recorder.sightings
            if sighting.host == at
            and not sighting.packet.is_barrier
            and outgoing in (None, sighting.outgoing)
            and _is(sighting.packet.source, source)
            and _is(sighting.packet.destination, destination)
            and (not flags or (sighting.packet.tcp is not None and sighting.packet.tcp.flags & wanted == wanted))
        ]

    def dropped(self) -> int:
        """Return how many packets the node's rules have dropped so far for being INVALID."""
        return dropped_as_invalid(self.node, self.family.version) or 0

    def _judged_at_node(self) -> list[Judged]:
        return [judged for judged in self.recorder.judged if judged.host == self.roles.node]

    def judgements(self, *, source: SocketAddress | str, flags: str) -> list[Judgement]:
        """Return what the node's conntrack made of the TCP segments from an address that have all of these flags."""
        self.recorder.read()
        wanted = flags_of(flags)
        return [
            judged.judgement
            for judged in self._judged_at_node()
            if _is(judged.packet.source, source) and judged.packet.tcp and judged.packet.tcp.flags & wanted == wanted
        ]

    def judgement(self) -> Judgement:
        """Return what conntrack made of the packet injected last.

        :raises UnseenError: the witness has no word on it.
        """
        likeness = self._to_judge().packet.likeness
        for judged in reversed(self._judged_at_node()):
            if judged.packet.likeness == likeness:
                return judged.judgement
        raise UnseenError("the witness saw nothing of the injected packet")

    def _to_judge(self) -> Injected:
        """Return the packet that the trial is about.

        :raises UnseenError: there is none so far.
        """
        if self._injected is None:
            raise UnseenError("there is no packet to judge yet")
        return self._injected

    def words_of_nodes(self) -> dict[str, Judgement]:
        """Return what each node's conntrack made of the packet to be judged; a node that never saw it has no word."""
        likeness = self._to_judge().packet.likeness
        self.recorder.read()
        return {one.host: one.judgement for one in self.recorder.judged if one.packet.likeness == likeness}

    # --- expectations -------------------------------------------------------------------------------

    def expect(self, words: str, holds: bool, seen: object = "") -> bool:
        """Hold something against what the case is about.

        :param words: what is expected, for whoever reads the result.
        :param seen: what is so instead.
        :returns: whether it holds.
        """
        self._checks.append(Check(words, holds, _told(seen)))
        return holds

    async def expect_packet(
        self,
        at: str,
        *,
        source: SocketAddress | str | None = None,
        destination: SocketAddress | str | None = None,
        flags: str = "",
        outgoing: bool | None = None,
    ) -> bool:
        """Expect a packet on a host's interfaces: by now, or before a barrier that is sent now comes through."""

        def match() -> list[Sighting]:
            return self.seen(at, source=source, destination=destination, flags=flags, outgoing=outgoing)

        if not match():
            await self.barrier()
        return self.expect(f"at {at} {_words(source, destination, flags)}", bool(match()), "nothing of the kind")

    async def expect_nothing(
        self,
        at: str,
        *,
        source: SocketAddress | str | None = None,
        destination: SocketAddress | str | None = None,
        flags: str = "",
        outgoing: bool | None = None,
    ) -> bool:
        """Expect that no such packet was seen: a barrier goes behind it, and the capture must have seen that."""
        await self.barrier()
        match = self.seen(at, source=source, destination=destination, flags=flags, outgoing=outgoing)
        first = f"{match[0].packet.source} > {match[0].packet.destination}" if match else ""
        return self.expect(f"at {at} no {_words(source, destination, flags)}", not match, first)

    def expect_entry(
        self, *, state: str | None = None, timeout: range | None = None, assured: bool | None = None
    ) -> bool:
        """Expect the connection's entry at the node, in a state and with so many seconds left."""
        entry = self.entry()
        wanted = {"state": state, "timeout": timeout, "assured": assured}
        words = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        holds = (
            entry is not None
            and state in (None, entry.tcp_state)
            and (timeout is None or (entry.timeout or 0) in timeout)
            and assured in (None, entry.assured)
        )
        return self.expect(f"a conntrack entry{', ' if words else ''}{words}", holds, entry or "none")

    def expect_no_entry(self) -> bool:
        """Expect that the node has no entry of the connection."""
        entry = self.entry()
        return self.expect("no conntrack entry", entry is None, entry or "")

    def expect_counter(self, name: str, count: int) -> bool:
        """Expect a counter of the node: of ``conntrack -S``, or the witness's of a state such as ``related``."""
        both = {**self.statistics(), **counters(self.node.nft)}
        return self.expect(f"{name} counted {count:,}", both.get(name, 0) == count, f"{both.get(name, 0):,}")

    def expect_reason(self, *beginnings: str) -> bool:
        """Expect the kernel to have said so of the packet that was judged last, at whichever node it came to.

        :param beginnings: of the reason; several where kernels word it differently.
        """
        likeness = self._to_judge().packet.likeness
        self.recorder.read()
        reasons = [one.reason for one in self.recorder.judged if one.packet.likeness == likeness]
        words = reasons[-1] if reasons else ""
        wanted = " or ".join(map(repr, beginnings))
        return self.expect(f"the kernel's reason {wanted}", words.startswith(beginnings), repr(words))

    def expect_counted(self, name: str, least: int = 1) -> bool:
        """Expect a counter of ``conntrack -S`` to have counted as many or more: retransmissions come when they come."""
        count = self.statistics().get(name, 0)
        return self.expect(f"{name} counted {least:,} or more", count >= least, f"{count:,}")

    def find(self, words: str) -> None:
        """Note something that kernels may differ in, in the same words on each that does the same."""
        self._findings.append(words)

    # --- time and order -----------------------------------------------------------------------------

    async def barrier(self, server: str | None = None) -> None:
        """Send a datagram from the client to a server, back and there again, behind everything on the same path.

        Packets of one processor keep their order over veth links (its backlog is a queue), so when the last one is
        there, whatever came before it has had its effect, and what was not seen by then does not come. What a timer
        has sent from another processor is waited for where it was seen to leave, and another barrier goes behind it.

        :param server: one of the roles' servers, the one that is asked when None.
        """
        client, server = self.roles.client, server or self._server
        try:
            await self._echo(server)
            await self._stragglers(server)
        except UnseenError as failure:
            self._faults.append(str(failure))
        except (TimeoutError, OSError) as failure:
            raise_if_of_machine(failure)
            self._faults.append(f"the barrier datagram did not come back: {failure or 'no answer'}")
        self._barriers[server] += 1
        self.recorder.read()
        for host, passed in ((client, self._barriers.total()), (server, 2 * self._barriers[server])):
            if self._barriers_at(host) < passed:
                self._faults.append(f"the capture on {host} missed the barrier datagram")
        for node, legs in self._barrier_legs.items():
            if sum(judged.packet.is_barrier for judged in self.recorder.judged if judged.host == node) < legs:
                self._faults.append(f"the witness on {node} missed the barrier datagram")

    async def _stragglers(self, server: str) -> None:
        """Wait for what is in the queue of another processor, and for its effect; a barrier has just come through.

        :raises UnseenError: it left one end of a link and never came to the other.
        :raises TimeoutError: and ``OSError``: another barrier was lost.
        """
        recorder = self.recorder
        recorder.read()
        while recorder.is_under_way and not recorder.blind_ends:
            await recorder.until(lambda: not recorder.is_under_way, "what left a link's end to come to the other")
            await self._echo(server)
            self._barriers[server] += 1
            recorder.read()

    async def _echo(self, server: str) -> None:
        """Send a barrier's datagram there, back and there again, and wait for the last.

        :raises TimeoutError: it was lost.
        :raises OSError: there is no way.
        """
        address = self._server_address if server == self._server else dict(self.roles.servers)[server]
        to_client = SocketAddress(self.roles.client_address.address, BARRIER_PORT)
        to_server = SocketAddress(address.address, BARRIER_PORT)
        there = datagram_socket(self.lab.hosts[self.roles.client].namespace, to_client, to_server)
        here = datagram_socket(self.lab.hosts[server].namespace, to_server)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(bound.SECONDS):
                there.send(b"there")
                _words, sender = await loop.sock_recvfrom(here, 16)  # a masquerading node is the sender itself
                here.sendto(b"and back", sender)
                await loop.sock_recv(there, 16)
                there.send(b"and there")
                await loop.sock_recv(here, 16)
            passed = self._passed(self.roles.client, address.address)
            back = self._passed(server, sender[0])
            self._barrier_legs.update([*passed, *back, *passed])
        finally:
            there.close()
            here.close()

    def _passed(self, host: str, destination: str) -> tuple[str, ...]:
        """Return the nodes on the way to an address; what comes to a masquerading node's goes on to the client."""
        topology = self.lab.topology
        hosts = way(topology, host, destination)
        if host != self.roles.client and hosts[-1] in self._nodes and hosts[-1] != self.roles.client:
            hosts += way(topology, hosts[-1], self.roles.client_address.address)[1:]
        return tuple(one for one in dict.fromkeys(hosts) if one in self._nodes)

    def _injector(self, host: str, destination: str) -> Injector:
        """Return what puts forged packets for an address on the link that its sender's route names.

        :raises LabError: the sender has no route there.
        """
        if (host, destination) not in self._injectors:
            self._injectors[host, destination] = self.lab.injector(host, destination)
        return self._injectors[host, destination]

    def _lost_where(self, packet: Packet) -> str:
        """Tell where a packet was seen last, and what the node there made of it."""
        last = end_of_way(packet, self.recorder.sightings)
        if last is None:
            return "was seen nowhere"
        words = [
            one for one in self.recorder.judged if one.packet.likeness == packet.likeness and one.host == last.host
        ]
        told = ""
        if words:
            reason = f" ({words[-1].reason})" if words[-1].reason else ""
            told = f", {words[-1].judgement} there{reason}"
        return f"left {last.host} and came nowhere" if last.outgoing else f"came to {last.host} and no further{told}"

    def _barriers_at(self, host: str) -> int:
        """Count the barriers' datagrams that came to a host."""
        return sum(
            sighting.host == host and not sighting.outgoing and sighting.packet.is_barrier
            for sighting in self.recorder.sightings
        )

    async def until(self, condition: Callable[[], bool], what: str, *, within: float | None = None) -> None:
        """Wait until ``condition`` holds, asked again whenever something was seen.

        :param within: as many seconds; :data:`lab.netns.bound.SECONDS` where none are given.
        :raises UnseenError: it did not; says ``what`` was waited for.
        """
        await self.recorder.until(condition, what, within=within)

    # --- the end ------------------------------------------------------------------------------------

    def finish(self) -> Timeline:
        """Stop the instruments, read the counters, and return what was seen."""
        self._order.close()
        counters = self._count()
        if self._is_lost() and not counters.dropped:
            drops = [drop for node in self._nodes for drop in counted_drops(self.lab.hosts[node], self.family.version)]
            counters = replace(counters, other_drops=tuple(drops))
        self.recorder.stop()
        if lost := self.recorder.lost():
            self._faults.append(f"the captures lost {lost} packets")
        # Where the client's own host had no route, there was nothing to be seen.
        looked_for = self.sees_each and not self._without_route
        for host in dict.fromkeys((self.roles.client, self.roles.node)) if looked_for else ():
            if not any(one.host == host and one.interface != LOCAL for one in self.recorder.sightings):
                self._faults.append(f"the capture on {host} saw nothing")
        # All namespaces of a machine share one hash table: somebody else's millions of entries fill its chains.
        if crowded_out := self.statistics().get("chain_toolong"):
            self._faults.append(f"conntrack dropped {crowded_out} packets, for the machine's hash table is overfull")
        return Timeline(
            client=self.roles.client,
            node=self.roles.node,
            server=self._server,
            target=self._target,
            client_address=self.roles.client_address,
            server_address=self._server_address,
            peer_address=self._peer,
            injected=self._injected,
            sightings=tuple(sorted(self.recorder.sightings, key=lambda sighting: sighting.time)),
            judged=tuple(self.recorder.judged),
            entry_events=tuple(self.recorder.entry_events),
            entry=self.entry(),
            counters=counters,
            bystanders=self._bystanders(),
            refusal=self._refusal,
            complete=self._complete,
            checks=tuple(self._checks),
            findings=(*self._findings, *self._bypasses()),
            trace=self._trace,
            standstill=self._standstill,
            held_up=self._punctuality.late,
            faults=tuple(dict.fromkeys(self._faults)),
        )

    def _bypasses(self) -> list[str]:
        """Tell of each node that is on the way of one direction alone: half of the connection passes it by."""
        client, server = self.roles.client, self._server
        there = self._passed(client, self._server_address.address)
        back = self._passed(server, self._peer.address)
        hosts = {
            client: way(self.lab.topology, client, self._server_address.address),
            server: way(self.lab.topology, server, self._peer.address),
        }
        return [
            f"{node} sees only what {sees} sends: from {other} to {sees} it goes {' > '.join(hosts[other])}"
            for sees, other, nodes, others in ((client, server, there, back), (server, client, back, there))
            for node in nodes
            if node not in others
        ]

    def _is_lost(self) -> bool:
        """Tell whether a packet that the trial is about did not come to its end, or no connection came about."""
        if self._refusal is not None or self._standstill:
            return True
        return self._injected is not None and not self._has_come(self._injected)

    def _has_come(self, injected: Injected) -> bool:
        """Tell whether the packet to be judged came to its receiver, or to the judging node's own sockets."""
        return any(
            (sighting.host == injected.receiver or sighting.interface == LOCAL)
            and not sighting.outgoing
            and sighting.packet.likeness == injected.packet.likeness
            for sighting in self.recorder.sightings
        )

    def stand_still(self, *words: str) -> None:
        """Note that the connection neither goes on nor ends: it is what became of the trial, and not a fault of it.

        :param words: how it is known, briefly; then what more there is to tell.
        """
        self._standstill = words

    def _bystanders(self) -> tuple[str, ...]:
        roles = {self.roles.client, self._server, *self._nodes}
        return tuple(host.name for host in self.lab.topology.hosts if not host.forwarding and host.name not in roles)

    def _count(self) -> Counters:
        """Read what all nodes counted, when the log tells the same: a stack may send again meanwhile.

        A packet is counted by conntrack first, then by the witness, and logged last.
        """
        self.recorder.read()
        for _ in range(_ROUNDS):
            judged = len(self.recorder.judged)
            counters = self._read_counters()
            self.recorder.read()
            if len(self.recorder.judged) == judged and self._is_logged(counters):
                break
        return counters

    def _is_logged(self, counters: Counters) -> bool:
        """Tell whether the log has as many INVALID packets as were counted."""
        invalid = [one.packet.protocol for one in self.recorder.judged if one.state == "invalid"]
        counted = (counters.states.get("invalid", 0), counters.statistics.get("invalid", 0))
        return (len(invalid), invalid.count(TCP)) == counted

    def _read_counters(self) -> Counters:
        nodes = [self.lab.hosts[node] for node in self._nodes]
        dropped = [dropped_as_invalid(node, self.family.version) for node in nodes]
        by_rule = [count for count in dropped if count is not None]
        return Counters(
            _added(counters(node.nft) for node in nodes),
            _added(table.statistics() for table in self._tables),
            sum(by_rule) if by_rule else None,
        )


@contextmanager
def _rules(host: RunningHost, hook: str, priority: str, rules: str) -> Iterator[None]:
    """Give a host some rules of the case's own, and take them away again."""
    head = f"type filter hook {hook} priority {priority}; policy accept;"
    host.nft.run(f"table inet lab_case {{\nchain {hook} {{\n{head}\n{rules}\n}}\n}}\n")
    try:
        yield
    finally:
        host.nft.run("delete table inet lab_case\n")


def _told(seen: object) -> str:
    """Tell what was seen as a person would read it: several things one after the other."""
    if isinstance(seen, Mapping):
        return ", ".join(f"{key}: {value}" for key, value in seen.items()) or "none"
    if isinstance(seen, list | tuple | set | frozenset):
        return ", ".join(map(str, seen)) or "none"
    return str(seen)


def _is(address: SocketAddress, wanted: SocketAddress | str | None) -> bool:
    return wanted is None or wanted in (address, address.address)


def _words(source: SocketAddress | str | None, destination: SocketAddress | str | None, flags: str) -> str:
    parts = (
        f"{flags} segment" if flags else "packet",
        source and f"from {source}",
        destination and f"to {destination}",
    )
    return " ".join(str(part) for part in parts if part)


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread on the processor it is on: its packets then share one queue and keep their order.

    Blocks may overlap: who comes later stays on the same one, and the last to leave sets the thread free.
    """
    if not _kept.blocks:
        _kept.allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {ctypes.CDLL(None).sched_getcpu()})
    _kept.blocks += 1
    try:
        yield
    finally:
        _kept.blocks -= 1
        if not _kept.blocks:
            os.sched_setaffinity(0, _kept.allowed)


class _Kept(threading.local):
    """How many blocks keep this thread on a processor, and where it may run otherwise."""

    blocks = 0
    allowed: AbstractSet[int] = frozenset()


_kept: Final = _Kept()
