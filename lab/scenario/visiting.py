# SPDX-License-Identifier: MIT
"""Questions to the Services of a lab that others use, whose own servers answer.

Who answered, and whom it took for its client, is told by the packets: the server's program is asked nothing.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

from lab.conntrack.flows import Flow, Flows
from lab.errors import LabError
from lab.evidence.packet import Packet, SocketAddress
from lab.evidence.reach import PROTOCOLS, Fate, Passage, Question, Reached
from lab.evidence.sighting import Sighting
from lab.fabric.lab import Lab
from lab.scenario.became import Look, is_open, unanswered
from lab.scenario.reaching import Reaching, icmp_limits
from lab.vocabulary import Family

#: Source and destination.
_Ends: TypeAlias = tuple[SocketAddress, SocketAddress]

#: Bytes of a packet that may be a question's own: what is longer is somebody's download.
_LONGEST: Final = 1500
#: Seconds for a datagram's answer from a server that has got it; nothing else here is a matter of time.
_A_WHILE: Final = 1.0


class Visiting(Reaching):
    """Questions to the Services of a lab that stands, of one family; see :class:`lab.scenario.reaching.Reaching`.

    What others send meanwhile is not looked at: of the packets those count that are a question's own, by their ends
    and by what address translation leaves as it is. Of SCTP, which no server of a lab that stands speaks, the endpoints
    answer themselves.
    """

    def __init__(self, lab: Lab, family: Family) -> None:
        self._mine: set[tuple[int, _Ends]] = set()  # of all questions
        self._now: set[tuple[int, _Ends]] = set()  # of the last one, with what it was translated to
        self._alike: set[tuple[object, ...]] = set()
        self._asking: tuple[Question, SocketAddress] | None = None
        for running in lab.hosts.values():
            before: dict[str, str | int] = {
                key: running.namespace.sysctl(key) for key in icmp_limits(running.namespace, family)
            }
            lab.undo(partial(running.namespace.set_sysctls, before))
        super().__init__(lab, family)
        for capture in self._captures:
            capture.leave_out_longer(_LONGEST)

    def _serves(self, protocol: str) -> bool:
        return protocol == "sctp"

    def _begin(self, question: Question, own: SocketAddress) -> None:
        self._now, self._alike = {(PROTOCOLS[question.protocol], (own, question.address))}, set()
        self._asking = question, own
        self._mine |= self._now

    def _own(self, sightings: list[Sighting]) -> list[Sighting]:
        if self._asking:
            question, own = self._asking
            ends = self._as_it_leaves(question, own)
            self._now.add((PROTOCOLS[question.protocol], ends))
            self._mine |= self._now
        return [one for one in sorted(sightings, key=lambda one: one.time) if self._is_own(one.packet)]

    def _as_it_leaves(self, question: Question, own: SocketAddress) -> _Ends:
        """Return the ends of a question as it leaves its client: of a node its own kernel translates it before."""
        if self.lab.topology.host(question.client).proxy_mode is not None:
            entry = self._entries.entry(question.client, question, own)
            if entry is not None:
                return entry.reply[1], entry.reply[0]
        return own, question.address

    def _is_own(self, packet: Packet) -> bool:
        if packet.icmp is not None:
            quoted = packet.icmp.quoted
            return quoted is not None and any(ends in (quoted, quoted[::-1]) for _protocol, ends in self._now)
        ends = (packet.source, packet.destination)
        key, back = (packet.protocol, ends), (packet.protocol, ends[::-1])
        if not (packet.likeness in self._alike or key in self._now or back in self._now):
            return False
        if back not in self._now:
            self._now.add(key)
            self._mine.add(key)
        # Of IPv6 nothing but the length tells datagrams apart; of IPv4 nothing does where the number is 0.
        if packet.tcp is not None or packet.identification or ":" in packet.source.address:
            self._alike.add(packet.likeness)
        return True

    def _heard(
        self, reached: Reached, asking: socket.socket, passage: Passage, text: bytes, look: Look
    ) -> Reached | None:
        """Return what came of a question that came to a server, by its packets; None where it came to none."""
        source, destination = self._as_it_leaves(passage.question, passage.own)
        left = replace(passage, own=source, question=replace(passage.question, address=destination))
        arrival = left.arrival(self._has)
        if arrival is None:
            return None
        host, packet = arrival
        reached = replace(reached, server=host, server_address=packet.destination, seen_as=packet.source)
        if reached.question.protocol == "tcp":
            if is_open(asking) and left.is_acknowledged_at(host):
                return look(replace(reached, fate=Fate.CONNECTED))
            return None
        # What comes in at a node that asks is captured before that has translated it back: it is a stranger's only
        # where the socket does not get it.
        if passage.refusal() or left.stranger():
            return None
        select.select([asking], [], [], _A_WHILE)
        passage = replace(passage, sightings=[*passage.sightings, *self._settled()])
        try:
            if asking.recv(len(text) + 1) == text:
                return look(replace(reached, fate=Fate.CONNECTED))
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        return look(unanswered(self.lab, reached, passage, code))

    def _has(self, host: str, address: str) -> bool:
        found = self.lab.topology.host_of(address)
        return found is not None and found.name == host

    def check(self) -> None:
        """Check that the captures have missed nothing.

        :raises LabError: they have: nothing can be concluded.
        """
        if lost := sum(capture.lost() for capture in self._captures):
            raise LabError(f"the captures lost {lost} packets beside what others send here: nothing can be concluded")

    def forget(self) -> None:
        """Delete what the questions have left in the nodes' conntrack tables."""

        def chosen(flows: Iterable[Flow]) -> list[Flow]:
            return [flow for flow in flows if (flow.number, _ends_of(flow)) in self._mine]

        self._settled()  # what the last one's end has sent
        for node in self.lab.topology.nodes:
            Flows(self.lab.hosts[node.name].namespace).delete_those(chosen)


def _ends_of(flow: Flow) -> _Ends:
    ports = flow.original.ports
    return (
        SocketAddress(flow.original.source, ports.get("sport", 0)),
        SocketAddress(flow.original.destination, ports.get("dport", 0)),
    )
