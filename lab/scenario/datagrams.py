# SPDX-License-Identifier: MIT
"""Questions and answers by datagram through a running lab, and what became of each."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from lab.evidence.entry import Entry
from lab.evidence.packet import UDP, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.evidence.timeline import DatagramsTimeline, Exchange
from lab.fabric.lab import Lab
from lab.netns.rtnetlink import no_address
from lab.scenario.base import Scenario
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import Roles
from lab.traffic.tcp import datagram_socket
from lab.verdict import datagrams
from lab.vocabulary import Behaviour, Family
from lab.wire.hold import Hold

_LONGEST: Final = 2048  # bytes of a datagram
_ANSWER: Final = 200  # bytes that an answer has more than its question: lengths tell datagrams apart


@dataclass
class _Question:
    """A question under way."""

    client: str
    source: SocketAddress
    length: int
    socket: socket.socket
    reached: list[str] = field(default_factory=list)
    answered: bool = False
    error: str | None = None


class DatagramsScenario(Scenario[DatagramsTimeline]):
    """Clients that ask by UDP from ports that they keep, and servers that answer. Made inside the running event loop.

    Nothing moves by itself: :meth:`settle` has the servers answer what has come, and the clients take it in. What was
    not there by then does not come, for barriers go behind the questions and behind the answers.
    """

    decide = staticmethod(datagrams.decide)

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._target = roles.service_address or self._server_address
        self._servers = {
            host: lab.keep(datagram_socket(lab.hosts[host].namespace, address)) for host, address in roles.servers
        }
        self._clients: dict[SocketAddress, socket.socket] = {}
        self._questions: list[_Question] = []
        self._settled = 0  # questions of which nothing is under way any more
        self._source = roles.client_address
        self._hold: Hold | None = None

    # --- questions and answers ----------------------------------------------------------------------

    def ask(self, question: str, *, client: str | None = None, port: int | None = None) -> None:
        """Send a question. The questions of one trial have different lengths, which tell them apart.

        :param client: a host, instead of the roles' servers client.
        :param port: to ask from, instead of the roles' servers.
        """
        host = client or self.roles.client
        address = self.roles.client_address.address
        if host != self.roles.client:
            address = str(self.lab.topology.addresses(host, self.family)[0])
        self._source = source = SocketAddress(address, port or self.roles.client_address.port)
        if source not in self._clients:
            namespace = self.lab.hosts[host].namespace
            self._clients[source] = self.lab.keep(datagram_socket(namespace, source, self._target))
        self._questions.append(_Question(host, source, len(question), self._clients[source]))
        self._clients[source].send(question.encode())

    async def settle(self) -> None:
        """Wait until whatever is under way has arrived and was answered, and the answers have arrived."""
        await self._pass_all()
        self._answer()
        await self._pass_all()
        self._take_answers()
        self._settled = len(self._questions)

    async def _pass_all(self) -> None:
        for host in self._servers:
            if host != self.roles.client:  # what a pod sends to itself passes no node
                await self.barrier(host)

    def _answer(self) -> None:
        for host, server in self._servers.items():
            while (received := _receive(server)) is not None:
                words, sender = received
                for question in self._questions:
                    if question.length == len(words):
                        question.reached.append(host)
                server.sendto(words + bytes(_ANSWER), sender)

    def _take_answers(self) -> None:
        for question in self._questions:
            try:
                while (received := _receive(question.socket)) is not None:
                    for asked in self._questions:
                        if asked.socket is question.socket and asked.length + _ANSWER == len(received[0]):
                            asked.answered = True
            except OSError as failure:
                # A socket does not say which of its datagrams was refused: the first of which that is not known yet.
                under_way = (one for one in self._questions[self._settled :] if one.socket is question.socket)
                refused = next((one for one in under_way if one.error is None), question)
                refused.error = errno.errorcode.get(failure.errno or 0, str(failure))

    @property
    def answered_by(self) -> SocketAddress:
        """The server that got the last question."""
        return dict(self.roles.servers)[self._questions[-1].reached[-1]]

    def answering(self, last: int) -> list[str]:
        """Return the servers that got the last questions, of which there are as many as said, as they came."""
        return [host for question in self._questions[-last:] for host in question.reached]

    def end_server(self, address: SocketAddress) -> None:
        """End a server's pod: its address is gone, and what comes for it is heard by nobody."""
        host = next(name for name, own in self.roles.servers if own == address)
        end = next(
            end for end in self.lab.topology.ends(host) if address.address in (str(own.ip) for own in end.addresses)
        )
        own = next(own for own in end.addresses if str(own.ip) == address.address)
        running = self.lab.hosts[host]
        running.routes.apply([no_address(running.interfaces[end.interface].index, own, f"{host}: {end.interface}")])
        del self._servers[host]
        self._server = next(iter(self._servers))
        self._server_address = dict(self.roles.servers)[self._server]

    # --- races --------------------------------------------------------------------------------------

    def hold(self) -> None:
        """From now on hold questions on the node, each with its translation chosen and its entry not yet confirmed."""
        match = f"udp dport {{ {self._target.port}, {self._server_address.port} }}"  # as asked, or translated
        self._hold = self.lab.keep(Hold(self.node.namespace, self.node.nft, self.family, match))

    def _holding(self) -> Hold:
        if self._hold is None:
            raise UnseenError("nothing is held on the node: hold first")
        return self._hold

    async def held(self, count: int) -> list[Packet]:
        """Wait until so many questions are held; return them as they are now, in the order in which they came."""
        hold = self._holding()

        def there() -> bool:
            hold.read()
            return len(hold.held) >= count

        # The counting rules see each before it is held, and one queue of the kernel's is behind both.
        await self.barrier()
        await self.until(there, f"{count} questions to be held")
        return list(hold.held)

    def release(self, *packets: Packet) -> None:
        """Release held questions, in this order."""
        hold = self._holding()
        for packet in packets:
            hold.release(packet)

    def take_back(self, *packets: Packet) -> None:
        """Drop held questions, the last that were asked: they are no part of the trial."""
        hold = self._holding()
        for packet in packets:
            hold.discard(packet)
        del self._questions[-len(packets) :]

    # --- what is known of it ------------------------------------------------------------------------

    def entry(self) -> Entry | None:
        """Return the entry of the flow that was asked by last, as the node has it now; None where it is gone."""
        return self._nodes.followed.entry(UDP, self._source, self._target)

    def _is_lost(self) -> bool:
        return not all(question.reached for question in self._questions)

    def finish(self) -> DatagramsTimeline:
        """Stop the instruments, read the counters, and return what was seen."""
        common = self._stop()
        seen = [_exchange(common["sightings"], self._target, question) for question in self._questions]
        exchanges = tuple(
            one if one.reached or one.error else replace(one, unrouted=self._why_lost(one.question)) for one in seen
        )
        complete = bool(exchanges) and all(exchange.answered for exchange in exchanges)
        return DatagramsTimeline(**{**common, "complete": complete}, exchanges=exchanges)


class LastDatagramScenario(DatagramsScenario):
    """The same where the last question decides: those before it are there to be remembered by conntrack."""

    decide = staticmethod(datagrams.decide_by_the_last)


def _exchange(sightings: Iterable[Sighting], target: SocketAddress, question: _Question) -> Exchange:
    """Return what came of a question, as its client's interface and socket have it."""
    packets = [(sighting.outgoing, sighting.packet) for sighting in sightings if sighting.host == question.client]
    asked = [
        packet
        for outgoing, packet in packets
        if outgoing and packet.source == question.source and packet.payload_length == question.length
    ]
    if not asked:
        raise UnseenError(f"the capture on {question.client} missed a question")
    answers = (
        packet
        for outgoing, packet in packets
        if not outgoing
        and packet.destination == question.source
        and packet.protocol == UDP
        and packet.payload_length == question.length + _ANSWER
    )
    return Exchange(
        question.client,
        target,
        asked[0],
        tuple(question.reached),
        next(answers, None),
        question.answered,
        None if question.answered else question.error,
    )


def _receive(sock: socket.socket) -> tuple[bytes, tuple[str, int]] | None:
    """Receive one datagram; None where none waits.

    :raises OSError: the error that the socket has instead, such as ECONNREFUSED.
    """
    try:
        words, sender = sock.recvfrom(_LONGEST)
    except BlockingIOError:
        return None
    return words, sender
