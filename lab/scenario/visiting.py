# SPDX-License-Identifier: MIT
"""Questions to the Services of a lab that others use, whose own servers answer.

Who answered, and whom it took for its client, is told by the packets: the server's program is asked nothing.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from lab.conntrack.flows import Flow, Flows
from lab.errors import LabError
from lab.evidence.packet import Ends, SocketAddress
from lab.evidence.reach import PROTOCOLS, Fate, Passage, Question, Reached
from lab.evidence.sighting import Sighting
from lab.fabric.lab import Lab
from lab.scenario.became import Look, is_open, unanswered
from lab.scenario.deciding import Source
from lab.scenario.own_flow import OwnFlow, ends_of
from lab.scenario.reaching import Reaching, icmp_limits
from lab.vocabulary import Family

#: Bytes of a packet that may be a question's own: what is longer is somebody's download.
_LONGEST: Final = 1500
#: Seconds for the answer of a server that has got a datagram and says nothing; all else here ends by an event.
_A_WHILE: Final = 1.0


class Visiting(Reaching):
    """Questions to the Services of a lab that stands, of one family; see :class:`lab.scenario.reaching.Reaching`.

    What others send meanwhile is not looked at: of the packets those count that are a question's own, by their ends
    and by what address translation leaves as it is. Of SCTP, which no server of a lab that stands speaks, the endpoints
    answer themselves.
    """

    def __init__(self, lab: Lab, family: Family) -> None:
        self._mine: set[tuple[int, Ends]] = set()  # of the questions before
        self._now: OwnFlow | None = None  # of the last one, with what it was translated to
        self._asking: tuple[Question, SocketAddress] | None = None
        for running in lab.hosts.values():
            before: dict[str, str | int] = {
                key: running.namespace.sysctl(key) for key in icmp_limits(running.namespace, family)
            }
            lab.undo(partial(running.namespace.set_sysctls, before))
        super().__init__(lab, family)
        for capture in self._captures:
            capture.leave_out(_LONGEST, lab.others)

    def _serves(self, protocol: str) -> bool:
        return protocol == "sctp"

    def _begin(self, question: Question, own: SocketAddress) -> None:
        if self._now:
            self._mine |= self._now.ends
        self._now = OwnFlow(PROTOCOLS[question.protocol], (own, question.address))
        self._asking = question, own

    def _own(self, sightings: list[Sighting]) -> list[Sighting]:
        if self._asking is None or self._now is None:
            return []
        question, own = self._asking
        self._now.ends.add((PROTOCOLS[question.protocol], self._as_it_leaves(question, own)))
        return [one for one in sorted(sightings, key=lambda one: one.time) if self._now.has(one.packet)]

    def _as_it_leaves(self, question: Question, own: SocketAddress) -> Ends:
        """Return the ends of a question as it leaves its client: of a node its own kernel translates it before."""
        if self.lab.topology.host(question.client).proxy_mode is not None:
            entry = self._entries.entry(question.client, question, own)
            if entry is not None:
                return entry.translated
        return own, question.address

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
        passage = replace(passage, sightings=self._await_answer(left, asking))
        try:
            if asking.recv(len(text) + 1) == text:
                return look(replace(reached, fate=Fate.CONNECTED))
            code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        return look(unanswered(self.lab, reached, passage, code))

    def _await_answer(self, passage: Passage, asking: socket.socket) -> Sequence[Sighting]:
        """Wait until a socket has an answer, or it is known that none comes; return what was seen by then.

        A rule has then dropped the datagram or its answer, or somebody has refused it or answered from elsewhere. Of a
        server that says nothing nothing is known: there it is :data:`_A_WHILE`.

        :param passage: of the datagram as it left its host.
        """
        sources: list[Source] = [asking, *self._captures, *(self.deciding.sources if self.deciding else ())]
        end = time.monotonic() + _A_WHILE
        while not (passage.refusal() or passage.stranger() or (self.deciding and self.deciding.drop(passage))):
            ready = select.select(sources, [], [], max(0.0, end - time.monotonic()))[0]
            passage = replace(passage, sightings=[*passage.sightings, *self._settled()])
            if asking in ready or not ready:
                break
        return passage.sightings

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
            return [flow for flow in flows if ends_of(flow) in mine]

        self._settled()  # what the last one's end has sent
        mine = self._mine | (self._now.ends if self._now else set())
        for node in self.lab.topology.nodes:
            Flows(self.lab.hosts[node.name].namespace).delete_those(chosen)
