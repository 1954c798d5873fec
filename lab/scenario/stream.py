# SPDX-License-Identifier: MIT
"""A live TCP connection through a running lab: established, used by both ends, and brought to its end."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Final

from lab.errors import InputError
from lab.evidence.follow import Side, distance
from lab.evidence.packet import FIN, PSH, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.evidence.timeline import Injected, SocketEnd
from lab.evidence.window import Prediction
from lab.fabric.lab import Lab
from lab.scenario.base import E, Scenario
from lab.scenario.errors import HalfOpenError
from lab.scenario.following import Following
from lab.scenario.handshake import connect
from lab.scenario.prediction import predict
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import Roles
from lab.traffic.tcp import FAREWELL, REQUEST, TCP_REPAIR, TcpEnd, stream
from lab.vocabulary import Behaviour, Family

_FIRST_PART: Final = 1000  # bytes of the stream before the case disturbs the connection
_SECOND_PART: Final = 4000  # and after it
#: In bytes: what the client asks for, and gets unless something is wrong.
WHOLE: Final = _FIRST_PART + _SECOND_PART
QUESTION: Final = b"are you there?\n"
_WORD: Final = 500  # bytes that the server says where the case is about its own next segment


class Stream(Scenario[E]):
    """One connection in one lab, whose two ends are real sockets."""

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._following = Following(self.recorder, self._server, self._server_address, self._peer)
        self._ends: tuple[TcpEnd, TcpEnd] | None = None
        self._client_says = REQUEST
        self._half_closed = False
        self._half_open: TcpEnd | None = None

    @property
    def server(self) -> Side:
        """The server's side of the connection: ``sent`` is its SND.NXT, ``acknowledged`` its RCV.NXT."""
        return self._following.server

    @property
    def client(self) -> Side:
        """The client's side of the connection."""
        return self._following.client

    @property
    def client_end(self) -> TcpEnd:
        """The client's own socket."""
        return self._connected()[0]

    @property
    def server_end(self) -> TcpEnd:
        """The server's own socket."""
        return self._connected()[1]

    def _connected(self) -> tuple[TcpEnd, TcpEnd]:
        if self._ends is None:
            raise UnseenError("there is no connection yet: establish one first")
        return self._ends

    # --- the connection -----------------------------------------------------------------------------

    async def establish(self, *, by_service: bool = True, source: str | None = None) -> None:
        """Connect the client, by the VIP or straight to the pod; move the first bytes; wait until nothing is in flight.

        :param source: another one of the client's addresses, to connect from; the barriers go from the first.
        :raises InputError: by the VIP, where the topology has no service of this family.
        :raises RefusedError: there is no connection; says how it is known.
        """
        if by_service:
            if self.roles.service_address is None:
                raise InputError(f"the topology has no TCP service with an {self.family} address")
            self._target = self.roles.service_address
        own = self.roles.client_address
        self._own = own if source is None else replace(own, address=source)
        self._ends = await self._handshake(self._own)
        client, server = self._ends
        self._server, self._server_address, self._peer = server.host, server.own_address, server.peer_address
        # The node that judges translates: where the server is on it, that is behind its link.
        on_link = self._target if server.host == self.roles.node else server.own_address
        self._following.restart(server.host, on_link, self._peer)
        await client.send(REQUEST)
        await server.receive(len(REQUEST))
        await server.send(stream(0, _FIRST_PART))
        await client.receive(_FIRST_PART)
        await self.recorder.until(lambda: self._following.quiet, "both ends to acknowledge everything")
        if self.recorder.is_under_way:  # an acknowledgement of a timer's, that data has overtaken
            await self.barrier()

    async def _handshake(self, own: SocketAddress) -> tuple[TcpEnd, TcpEnd]:
        """Connect from an address and port of the client's; return both ends."""
        try:
            ends = await connect(self, own, self._target)
        except HalfOpenError as known:
            self._server, self._server_address = known.server, dict(self.roles.servers)[known.server]
            client, packet = self.roles.client, known.acknowledgement
            nodes = self.passed(client, self._server_address.address)
            self._injected = Injected(client, self._server, packet, False, None, 0, 0, nodes=nodes)
            self._half_open = self.lab.keep(known.client)
            raise
        for end in ends:
            self.lab.keep(end)
        self._refusal, self._trace = None, ""  # an earlier attempt's, where the case makes several
        return ends

    async def server_speaks(self) -> None:
        """Have the server's own stack send its next bytes, to be judged, and wait until their effect is over."""
        await self._speak(self.server_end, stream(self.server_end.sent, _WORD))

    async def client_speaks(self, words: bytes = QUESTION, *, judged: bool = True) -> None:
        """Have the client's own stack send something, and wait until its effect is over.

        :param judged: it is what the trial is about.
        """
        self._client_says += words
        await self._speak(self.client_end, words, judged=judged)

    async def _speak(self, end: TcpEnd, words: bytes, *, judged: bool = True) -> None:
        seen = len(self.recorder.sightings)
        await end.send(words)
        await self.barrier()
        if judged:
            self._await_judgement_of_sent(end.host, seen, PSH)
        self._take_errors()

    def _await_judgement_of_sent(self, host: str, seen: int, flag: int) -> None:
        """Remember the first segment with a flag that a host's own stack sent since, as what the trial is about."""
        sent = (sighting.packet for sighting in self.recorder.sightings[seen:] if is_sent_by(sighting, host))
        packet = next((one for one in sent if one.tcp is not None and one.tcp.flags & flag), None)
        if packet is None:
            raise UnseenError(f"the capture on {host} saw nothing of what its stack sent")
        self._await_judgement(packet, forged=False, of_window=False)

    async def client_aborts(self) -> None:
        """Have the client close at once with a RST, and wait until its effect is over. All has been said by then."""
        self.client_end.close()
        await self.barrier()
        self._take_errors()
        self._complete = True

    async def client_vanishes(self) -> None:
        """Have the client's socket be gone without a word, as those of a pod are that was replaced by another."""
        self.client_end.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # closed like that it sends nothing
        await self.client_aborts()

    async def client_leaves(self) -> None:
        """Have the client say that it has nothing more to say, to be judged: its FIN may never be acknowledged."""
        self._half_closed = True
        seen = len(self.recorder.sightings)
        self.client_end.socket.shutdown(socket.SHUT_WR)
        await self.barrier()
        self._await_judgement_of_sent(self.client_end.host, seen, FIN)

    async def half_close(self) -> None:
        """Have the client say that it has nothing more to say (shutdown(2), SHUT_WR), and wait until that is known."""
        self._half_closed = True
        self.client_end.socket.shutdown(socket.SHUT_WR)
        await self.barrier()
        self.server_end.acknowledge()

        def is_told() -> bool:
            """Check whether the client has the acknowledgement: what has left the server may not be at the node yet."""
            heard = self.seen(self.roles.client, source=self._target, flags="A", outgoing=False)
            return any(
                one.packet.tcp is not None and one.packet.tcp.acknowledgement == self.client.sent for one in heard
            )

        await self.recorder.until(is_told, "the half-close to be acknowledged")
        await self.barrier()

    async def retransmissions(self, count: int) -> None:
        """Wait until the sender's stack has sent the judged segment that many times more."""
        injected = self._to_judge()
        if injected.packet.tcp is None:
            raise UnseenError("no stack sends the judged packet again: it is no TCP segment")
        number = injected.packet.tcp.sequence

        def sent() -> int:
            return sum(
                sighting.host == injected.host
                and sighting.outgoing
                and sighting.packet.tcp is not None
                and sighting.packet.tcp.sequence == number
                and sighting.packet.payload_length > 0
                for sighting in self.recorder.sightings
            )

        await self.recorder.until(lambda: sent() > count, f"{count} retransmissions")
        await self.barrier()  # until now the last has only left its sender

    async def go_on(self) -> None:
        """Have both ends go on with their stream as if nothing had happened, to its end or to theirs."""
        client, server = self.client_end, self.server_end
        if server.error is None:
            await server.send(stream(server.sent, _SECOND_PART))
        if server.error is None:
            await client.receive(server.sent)
        if not self._half_closed and client.error is None:
            self._client_says += FAREWELL
            await client.send(FAREWELL)
        if server.error is None:
            await self._end_well(client, server)
        elif client.error is None and not self._half_closed:
            # The client knows of nothing yet: its next bytes are answered with a reset.
            await client.receive(len(client.received) + 1)

    async def _end_well(self, client: TcpEnd, server: TcpEnd) -> None:
        """Wait until the last bytes have come and are acknowledged: an acknowledgement may be INVALID as well."""
        await server.receive(len(self._client_says))
        if server.error is None:
            await self.recorder.until(
                lambda: self.server.acknowledged == self.client.sent, "the server to acknowledge the last bytes"
            )
            await self.barrier()
            self._take_errors()
        self._complete = client.error is None and server.error is None

    # --- what is to be judged, and how it ended -----------------------------------------------------

    def _await_judgement(self, packet: Packet, *, forged: bool, of_window: bool) -> str:
        """Remember a packet as the one that the trial is about; return the host that it comes from."""
        from_server = packet.source.address == self._server_address.address
        sender, receiver = (self.server, self.client) if from_server else (self.client, self.server)
        hosts = (self._server, self.roles.client) if from_server else (self.roles.client, self._server)
        offset = (distance(sender.sent, packet.tcp.sequence) if forged else 0) if packet.tcp else None
        nodes = self.passed(hosts[0], packet.destination.address)
        predictions = self._predict(packet, nodes) if of_window else {}
        self._injected = Injected(*hosts, packet, forged, offset, receiver.window, receiver.sent, predictions, nodes)
        return hosts[0]

    def _predict(self, packet: Packet, nodes: tuple[str, ...]) -> dict[str, Prediction]:
        """Return what the model expects of a segment at each node on its way that has an entry of the connection."""
        entries = {node: entry for node in nodes if (entry := self._entry_at(node))}
        return predict(self.lab, self.recorder, self.behaviour, packet, entries)

    def _take_errors(self) -> None:
        for end in self._ends or ():
            end.pending_error()

    def _close_sockets(self) -> tuple[SocketEnd, ...]:
        """Close the sockets of the connection; return how they ended."""
        self._take_errors()  # what ended an end may have come while the other was waited for
        sockets = self._ends or ((self._half_open,) if self._half_open is not None else ())
        ends = tuple(self._end(end) for end in sockets)
        for end in sockets:
            end.close()
        return ends

    def _end(self, end: TcpEnd) -> SocketEnd:
        is_client = end.host == self.roles.client
        expected = stream(0, len(end.received)) if is_client else self._client_says[: len(end.received)]
        address = self._own if is_client else self._server_address
        return SocketEnd(end.host, address, end.error, end.sent, len(end.received), bytes(end.received) == expected)


def is_sent_by(sighting: Sighting, host: str) -> bool:
    """Check whether a packet left this host."""
    return sighting.host == host and sighting.outgoing
