# SPDX-License-Identifier: MIT
"""All instruments of a running lab in one event loop: captures on every host, the counting rules on every node."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

from lab.conntrack.netlink import ConntrackEvents
from lab.conntrack.nflog import LOCAL_GROUP, TRACED, PacketLog, Record
from lab.conntrack.witness import Pairing, local_script, passing_by, removal, script
from lab.errors import LabError
from lab.evidence.entry import EntryEvent
from lab.evidence.judgement import Judged
from lab.evidence.packet import TCP, UDP, Packet
from lab.evidence.sighting import LOCAL, Sighting
from lab.fabric.lab import Lab
from lab.netns import bound
from lab.topology.model import Topology
from lab.wire.capture import Capture

#: Bytes of a packet that may be a trial's own, where others have theirs: what is longer is somebody's download.
_LONGEST: Final = 8192


class UnseenError(LabError):
    """What was waited for did not happen within the bound."""


class _Instrument(Protocol):
    def fileno(self) -> int: ...


class Recorder:
    """Records from the moment on at which it is made; must be made inside the running event loop.

    :param nodes: the hosts whose conntrack judges. The entries of the first are followed, and what it gives to its own
        sockets is a sighting at :data:`LOCAL`.
    :param each: record each packet; else none is sighted, and judged are those that are INVALID or ignored. They are
        counted all the same.
    """

    def __init__(self, lab: Lab, nodes: Sequence[str], *, each: bool = True) -> None:
        self.sees_each = each
        self.sightings: list[Sighting] = []
        self.judged: list[Judged] = []
        self.entry_events: list[EntryEvent] = []
        self.traced: dict[str, list[Record]] = {}  # what iptables-legacy told of packets that are traced, by node
        self._ways = _ways(lab.topology)
        self._under_way: Counter[tuple[str, bool]] = Counter()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._is_asking = False
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Callable[[Sighting], None]] = []
        self._instruments: list[_Instrument] = []
        lab.keep(self)  # first, so that it leaves the loop before what it listens to is closed
        # The rules come before the logs: on a kernel that was just booted they bring conntrack and its sysctls.
        for node in nodes:
            passing = passing_by(_LONGEST, lab.others) if lab.has_others else ()
            witness = script(passing=passing) if each else script(logged=("invalid",))
            nft = lab.hosts[node].nft
            nft.run(witness + (local_script(passing) if each and node == nodes[0] else ""))
            lab.undo(partial(nft.run, removal()))
        for node in nodes if lab.has_others else ():
            namespace = lab.hosts[node].namespace
            lab.undo(partial(namespace.set_sysctls, PacketLog.settings(namespace)))
        self._logs = [(Pairing(node), lab.keep(PacketLog(lab.hosts[node].namespace))) for node in nodes]
        self._events = lab.keep(ConntrackEvents(lab.hosts[nodes[0]].namespace))
        captured = lab.hosts.items() if each else ()
        bridging = lab.topology.bridging
        self._captures = [
            lab.keep(Capture(name, running.namespace, others=name in bridging)) for name, running in captured
        ]
        for capture in self._captures if lab.has_others else ():
            capture.leave_out(_LONGEST, lab.others)
        self._instruments += [*(log for _pairing, log in self._logs), self._events, *self._captures]
        self._begun = time.time_ns()  # from now on both ends of every link are seen
        for instrument in self._instruments:
            self._loop.add_reader(instrument.fileno(), self.read)

    def on_sighting(self, listener: Callable[[Sighting], None]) -> None:
        """Call ``listener`` with every packet that is seen from now on."""
        self._listeners.append(listener)

    def read(self) -> None:
        """Take in whatever the instruments hold."""
        for capture in self._captures:
            sightings, others = capture.read(), capture.astray  # a listener may read as well
            for astray in others:
                self._passed(astray)
            for sighting in sightings:
                self._saw(sighting)
        for pairing, log in self._logs:
            records = log.read()
            self.judged += pairing.take(records)
            for record in records:
                if record.words.startswith(TRACED):
                    self.traced.setdefault(pairing.host, []).append(record)
                if record.group == LOCAL_GROUP and record.packet is not None:
                    # The log cuts the time of arrival to microseconds, and the interface was before the socket.
                    moment = record.time + 1000 if record.time else time.time_ns()
                    self._saw(Sighting(moment, pairing.host, LOCAL, False, record.packet))
        self.entry_events += self._events.read()
        if not self._is_asking:  # a condition may read as well
            self._ask()

    def _ask(self) -> None:
        self._is_asking = True
        try:
            for waiter in list(self._waiting):
                condition, future = waiter
                if condition():
                    self._waiting.remove(waiter)
                    if not future.done():
                        future.set_result(None)
        finally:
            self._is_asking = False

    def _saw(self, sighting: Sighting) -> None:
        self.sightings.append(sighting)
        self._passed(sighting)
        for listener in self._listeners:
            listener(sighting)

    def _passed(self, sighting: Sighting) -> None:
        """Count what is under way on the links, for whomever it is."""
        way = self._ways.get((sighting.host, sighting.interface, sighting.outgoing))
        if way is not None and sighting.time >= self._begun and _is_of_a_flow(sighting.packet):
            self._under_way[way, sighting.packet.is_barrier] += 1 if sighting.outgoing else -1

    async def until(self, condition: Callable[[], bool], what: str, *, within: float | None = None) -> None:
        """Wait until ``condition`` holds, asked again whenever something was seen.

        :param within: as many seconds; :data:`lab.netns.bound.SECONDS` where none are given.
        :raises UnseenError: it did not; says ``what`` was waited for.
        """
        self.read()
        if condition():
            return
        seconds = bound.SECONDS if within is None else within
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((condition, future))
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            raise UnseenError(f"waited {seconds:.0f} s for {what}") from None

    @property
    def is_under_way(self) -> bool:
        """True while a packet of a flow has left one end of a link and has not come to the other."""
        return any(count > 0 for count in self._under_way.values())

    async def all_arrived(self) -> None:
        """Wait until no packet of a flow is on a link.

        :raises UnseenError: one left an end and never came to the other.
        """
        await self.until(lambda: not self.is_under_way, "what left a link's end to come to the other")

    @property
    def blind_ends(self) -> list[str]:
        """The ends of links where a capture missed a barrier, each as host and interface. Read when it is over.

        Of a segment that more than two share, all of its ends are meant.
        """
        return [way for (way, is_barrier), count in self._under_way.items() if is_barrier and count]

    def missed(self) -> list[str]:
        """Return in sentences what the instruments could not take in: nobody had read them in time."""
        lost = sum(capture.lost() for capture in self._captures)
        found = [f"the captures lost {lost} packets"] if lost else []
        found += [f"the kernel lost a part of its log at {pairing.host}" for pairing, log in self._logs if log.lost]
        return [*found, *(["the kernel lost a part of conntrack's events"] if self._events.lost else [])]

    def stop(self) -> None:
        """Leave the event loop. What was not read by now was not counted by the nodes' counters either."""
        if not self.sees_each:
            for pairing, _log in self._logs:
                self.judged += pairing.let_through()
        self.close()

    def close(self) -> None:
        """Leave the event loop, with or without the last of it: a trial that was cancelled or failed ends here."""
        for instrument in self._instruments:
            self._loop.remove_reader(instrument.fileno())
        self._instruments.clear()


def _ways(topology: Topology) -> Mapping[tuple[str, str, bool], str]:
    """Return on which way a packet is that leaves by an interface, or comes in by one, named by the end of the way.

    :returns: by host, interface, and whether it leaves.
    """
    found: dict[tuple[str, str, bool], str] = {}
    for link in topology.links:
        names = [f"{end.host} {end.interface}" for end in link.ends]
        shared = " or ".join(names)  # whom of them a packet goes to, it does not say
        for number, end in enumerate(link.ends):
            far = shared if link.is_shared else names[1 - number]
            found[end.host, end.interface, True] = far
            found[end.host, end.interface, False] = shared if link.is_shared else names[number]
    return found


def _is_of_a_flow(packet: Packet) -> bool:
    """Check whether it is none of what kernels send on a new link by themselves, before both captures are made."""
    return packet.protocol in (TCP, UDP) or (packet.icmp is not None and packet.icmp.quoted is not None)
