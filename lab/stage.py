"""The stage on which a case plays: a live connection through a running lab, and the words to disturb it with."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from lab.conntrack.dropped import dropped_as_invalid
from lab.conntrack.netlink import ConntrackTable
from lab.conntrack.witness import Judgement, counters
from lab.errors import InputError, LabError
from lab.fabric import Lab
from lab.recorder import Recorder, UnseenError
from lab.timeline import Counters, Injected, SocketEnd, Timeline
from lab.traffic.stream import FAREWELL, REQUEST, TcpEnd, connect, datagram_socket, listen, stream
from lab.wire.capture import Sighting
from lab.wire.craft import Segment, craft
from lab.wire.follow import Connection, Side
from lab.wire.packet import TCP, UDP, SocketAddress, decode
from lab.words import Family

CLIENT_PORT: Final = 34567  # the figure's
_BARRIER_PORT: Final = 7  # echo, RFC 862
_FIRST_PART: Final = 1000  # bytes of the stream before the case disturbs the connection
_SECOND_PART: Final = 4000  # and after it


@dataclass(frozen=True)
class Cast:
    """Who plays: the hosts by name and the addresses that they know each other by.

    :param servers: the endpoints behind the service, as (host, address). Which of them plays is for the node's rules
        to choose.
    """

    client: str
    node: str
    client_address: SocketAddress
    servers: tuple[tuple[str, SocketAddress], ...]
    service_address: SocketAddress | None


class RefusedError(LabError):
    """The client's connection was refused or had no way: the case ends before it began."""


class Stage:
    """One connection in one lab. Made inside the running event loop."""

    def __init__(self, lab: Lab, cast: Cast, family: Family) -> None:
        self.lab = lab
        self.cast = cast
        self.family = family
        self.recorder = Recorder(lab, cast.node)
        self._table = lab.keep(ConntrackTable(lab.hosts[cast.node].namespace))
        self._server, self._server_address = cast.servers[0]
        self._connection = Connection()  # as the packets at the server's interface tell it
        self._target = self._server_address
        self._ends: tuple[TcpEnd, TcpEnd] | None = None
        self._injected: Injected | None = None
        self._forged: set[tuple[object, ...]] = set()
        self._refusal: str | None = None
        self._complete = False
        self._faults: list[str] = []
        self._barriers = 0
        self.recorder.on_sighting(self._follow)

    def _follow(self, sighting: Sighting) -> None:
        # A forged packet tells nothing of what the server's stack has sent.
        if sighting.host == self._server and sighting.packet.likeness not in self._forged:
            self._connection.see(sighting.packet)

    def _follow_server(self, host: str, address: SocketAddress) -> None:
        """Follow the connection at the server that the node's rules chose, from its first packet on."""
        self._server, self._server_address = host, address
        self._connection = Connection()
        for sighting in self.recorder.sightings:
            self._follow(sighting)

    @property
    def server(self) -> Side:
        """The server's side of the connection: ``sent`` is its SND.NXT, ``acknowledged`` its RCV.NXT."""
        side = self._connection.side(self._server_address)
        assert side is not None, "establish the connection first"
        return side

    @property
    def client(self) -> Side:
        """The client's side of the connection."""
        side = self._connection.other(self._server_address)
        assert side is not None, "establish the connection first"
        return side

    async def establish(self, *, by_service: bool = True) -> None:
        """Connect the client, by the VIP or straight to the pod; move the first bytes; wait until nothing is in flight.

        :raises InputError: by the VIP, where the topology has no service of this family.
        :raises RefusedError: there is no connection; the client's kernel says why.
        """
        if by_service:
            if self.cast.service_address is None:
                raise InputError(f"the topology has no TCP service with an {self.family} address")
            self._target = self.cast.service_address
        hosts = self.lab.hosts
        listeners = [(host, listen(hosts[host].namespace, address)) for host, address in self.cast.servers]
        try:
            client, server = self._ends = await connect(
                (self.cast.client, hosts[self.cast.client].namespace, self.cast.client_address),
                listeners,
                self._target,
            )
        except OSError as error:
            self._refusal = errno.errorcode.get(error.errno or 0, str(error))
            raise RefusedError(f"no connection to {self._target}: {self._refusal}") from None
        finally:
            for _host, listener in listeners:
                listener.close()
        self._follow_server(server.host, server.own_address)
        for end in self._ends:
            self.lab.keep(end)
        await client.send(REQUEST)
        await server.receive(len(REQUEST))
        await server.send(stream(0, _FIRST_PART))
        await client.receive(_FIRST_PART)
        await self.recorder.until(lambda: self._connection.quiet, "both ends to acknowledge everything")

    def next_bytes(self, length: int) -> bytes:
        """Return what the server will send next."""
        assert self._ends is not None
        return stream(self._ends[1].sent, length)

    async def inject(self, offset: int, payload: bytes) -> None:
        """Put a segment on the server's link that its own stack never made, and wait until its effect is over.

        :param offset: of its sequence number from the next one that the server would send. It acknowledges exactly
            what the server has received, for the client's reset copies that number, and RFC 5961 (3.2) lets a
            reset through only where it is exact.
        """
        assert self._ends is not None
        server, client = self.server, self.client
        own_time, echo = server.timestamps or (0, 0)
        packet = craft(
            Segment(
                self._server_address,
                self.cast.client_address,
                server.sent + offset,
                client.sent,
                "PA",
                server.last_window_field,
                payload,
                (own_time, echo) if server.timestamps else None,
            )
        )
        decoded = decode(packet)
        assert decoded is not None
        self._injected = Injected(self._server, decoded, offset, client.window)
        self._forged.add(decoded.likeness)
        injector = self.lab.injector(self._server)
        with one_processor():
            injector.send(packet)
            await self._barrier()
        self._ends[1].pending_error()

    def judgement(self) -> Judgement:
        """Return what conntrack made of the packet injected last.

        :raises UnseenError: the witness has no word on it.
        """
        assert self._injected is not None
        likeness = self._injected.packet.likeness
        for judged in reversed(self.recorder.judged):
            if judged.packet.likeness == likeness:
                return judged.judgement
        raise UnseenError("the witness saw nothing of the injected packet")

    async def _barrier(self) -> None:
        """Send a datagram to the client and back, behind everything that is under way on the same path.

        Packets of one processor keep their order over veth links (its backlog is a queue), so when the answer is
        here, whatever the segment before it caused has happened, and what was not seen by then does not come.
        """
        client, server = self.cast.client, self._server
        to_client = SocketAddress(self.cast.client_address.address, _BARRIER_PORT)
        to_server = SocketAddress(self._server_address.address, _BARRIER_PORT)
        there = datagram_socket(self.lab.hosts[client].namespace, to_client, to_server)
        here = datagram_socket(self.lab.hosts[server].namespace, to_server, to_client)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(10):
                here.send(b"there")
                await loop.sock_recv(there, 16)
                there.send(b"and back")
                await loop.sock_recv(here, 16)
        except TimeoutError:
            self._faults.append("the barrier datagram did not come back")
        finally:
            there.close()
            here.close()
        self._barriers += 1
        self.recorder.read()
        for host in (client, server):
            passed = sum(
                sighting.host == host and not sighting.outgoing and sighting.packet.protocol == UDP
                for sighting in self.recorder.sightings
            )
            if passed < self._barriers:
                self._faults.append(f"the capture on {host} missed the barrier datagram")
        witnessed = sum(judged.packet.protocol == UDP for judged in self.recorder.judged)
        if witnessed < 2 * self._barriers:
            self._faults.append("the witness on the node missed the barrier datagram")

    async def go_on(self) -> None:
        """Let both ends go on with their stream as if nothing had happened, to its end or to theirs."""
        assert self._ends is not None
        client, server = self._ends
        if server.error is None:
            await server.send(stream(server.sent, _SECOND_PART))
        if server.error is None:
            await client.receive(server.sent)
        await client.send(FAREWELL)
        if server.error is None:
            await server.receive(len(REQUEST + FAREWELL))
            self._complete = client.error is None and server.error is None
        elif client.error is None:
            # The client knows of nothing yet: its next bytes are answered with a reset.
            await client.receive(len(client.received) + 1)

    def finish(self) -> Timeline:
        """Stop the instruments, read the counters, close the connection, and return what was seen."""
        self.recorder.stop()
        node = self.lab.hosts[self.cast.node]
        if lost := self.recorder.lost():
            self._faults.append(f"the captures lost {lost} packets")
        counted = Counters(counters(node.nft), self._table.statistics(), dropped_as_invalid(node, self.family.version))
        entry = self._table.entry(TCP, self.cast.client_address, self._target)
        ends = tuple(self._end(end) for end in self._ends or ())
        for end in self._ends or ():
            end.close()
        sides = {self._server: self._server_address, self.cast.client: self.cast.client_address}
        return Timeline(
            self.cast.client,
            self.cast.node,
            self._server,
            self._target,
            self.cast.client_address,
            self._server_address,
            {host: side.first for host, address in sides.items() if (side := self._connection.side(address))},
            self._injected,
            tuple(sorted(self.recorder.sightings, key=lambda sighting: sighting.time)),
            tuple(self.recorder.judged),
            tuple(self.recorder.entry_events),
            entry,
            counted,
            ends,
            self._refusal,
            self._complete,
            tuple(self._faults),
        )

    def _end(self, end: TcpEnd) -> SocketEnd:
        is_client = end.host == self.cast.client
        expected = stream(0, len(end.received)) if is_client else (REQUEST + FAREWELL)[: len(end.received)]
        address = self.cast.client_address if is_client else self._server_address
        return SocketEnd(end.host, address, end.error, end.sent, len(end.received), bytes(end.received) == expected)


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this process on the processor it is on: its packets then share one queue and keep their order."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {ctypes.CDLL(None).sched_getcpu()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
