"""The stage on which a case plays: a live connection through a running lab, and the words to disturb it with."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from lab.conntrack.dropped import dropped_as_invalid
from lab.conntrack.netlink import ConntrackTable
from lab.conntrack.window import BE_LIBERAL, Prediction, Tracker
from lab.conntrack.witness import Judged, Judgement, counters
from lab.errors import InputError, LabError
from lab.fabric import Lab
from lab.recorder import Recorder, UnseenError
from lab.timeline import Counters, Injected, SocketEnd, Timeline
from lab.traffic.stream import FAREWELL, REQUEST, TcpEnd, connect, datagram_socket, listen, stream
from lab.wire.capture import Sighting
from lab.wire.craft import Segment, craft
from lab.wire.follow import Connection, Side, distance
from lab.wire.packet import TCP, UDP, Packet, SocketAddress, decode
from lab.words import Behaviour, Family

CLIENT_PORT: Final = 34567  # the figure's
_BARRIER_PORT: Final = 7  # echo, RFC 862
_FIRST_PART: Final = 1000  # bytes of the stream before the case disturbs the connection
_SECOND_PART: Final = 4000  # and after it
QUESTION: Final = b"are you there?\n"
_WORD: Final = 500  # bytes that the server says where the case is about its own next segment


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
    """One connection in one lab. Made inside the running event loop.

    :param behaviour: what this kernel does with packets out of the window; the stage then predicts what it will do.
    """

    def __init__(self, lab: Lab, cast: Cast, family: Family, behaviour: Behaviour | None = None) -> None:
        self.lab = lab
        self.behaviour = behaviour
        self.cast = cast
        self.family = family
        others = (node.name for node in lab.topology.nodes if node.name != cast.node)
        self._nodes = (cast.node, *others)
        self.recorder = Recorder(lab, self._nodes)
        self._tables = [lab.keep(ConntrackTable(lab.hosts[node].namespace)) for node in self._nodes]
        self._server, self._server_address = cast.servers[0]
        self._connection = Connection()  # as the packets at the server's interface tell it
        self._target = self._server_address
        self._ends: tuple[TcpEnd, TcpEnd] | None = None
        self._injected: Injected | None = None
        self._forged: set[tuple[object, ...]] = set()
        self._client_says = REQUEST
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

    def from_server(self, offset: int = 0, payload: bytes = b"", *, acknowledge: int = 0, **more: object) -> Segment:
        """Return a segment as the server's own stack would send it next, but for what is said otherwise.

        :param offset: added to its sequence number.
        :param acknowledge: added to its acknowledgement. Left at 0 it acknowledges exactly what the server has
            received: the client's reset copies that number, and RFC 5961 (3.2) lets a reset through only where it is
            exact.
        :param more: other fields of :class:`lab.wire.craft.Segment`, such as flags and options.
        """
        addresses = (self._server_address, self.cast.client_address)
        return _segment(self.server, self.client, addresses, offset, payload, acknowledge, more)

    def from_client(self, offset: int = 0, payload: bytes = b"", *, acknowledge: int = 0, **more: object) -> Segment:
        """Return a segment as the client's own stack would send it next, but for what is said otherwise."""
        addresses = (self.cast.client_address, self._target)
        return _segment(self.client, self.server, addresses, offset, payload, acknowledge, more)

    async def inject(self, segment: Segment) -> None:
        """Put a segment on its sender's link that the sender's stack never made, and wait until its effect is over."""
        data = craft(segment)
        packet = decode(data)
        assert packet is not None
        self._forged.add(packet.likeness)
        self._await_judgement(packet, forged=True, of_window=_is_plain(segment))
        injector = self.lab.injector(self._injected_from)
        with one_processor():
            injector.send(data)
            await self._barrier()
        self._take_errors()

    async def server_speaks(self) -> None:
        """Let the server's own stack send its next bytes, to be judged, and wait until their effect is over."""
        assert self._ends is not None
        await self._speak(self._ends[1], stream(self._ends[1].sent, _WORD))

    async def client_speaks(self) -> None:
        """Let the client's own stack send something, to be judged, and wait until its effect is over."""
        assert self._ends is not None
        self._client_says += QUESTION
        await self._speak(self._ends[0], QUESTION)

    async def _speak(self, end: TcpEnd, words: bytes) -> None:
        seen = len(self.recorder.sightings)
        with one_processor():
            await end.send(words)
            await self._barrier()
        sent = (sighting for sighting in self.recorder.sightings[seen:] if sighting.host == end.host)
        packet = next(one.packet for one in sent if one.outgoing and one.packet.payload_length and one.packet.tcp)
        self._await_judgement(packet, forged=False, of_window=False)
        self._take_errors()

    def forget_entry(self) -> None:
        """Delete the connection's entry at the node, as `conntrack -D` does."""
        entry = self._tables[0].entry(TCP, self.cast.client_address, self._target)
        assert entry is not None, "establish the connection first"
        self._tables[0].delete(entry)

    @property
    def unheard(self) -> bool:
        """True when the packet to be judged reached nobody, and no socket has failed for it."""
        injected = self._injected
        assert injected is not None
        arrived = any(
            sighting.host == injected.receiver and sighting.packet.likeness == injected.packet.likeness
            for sighting in self.recorder.sightings
        )
        return not arrived and all(end.error is None for end in self._ends or ())

    async def retransmissions(self, count: int) -> None:
        """Wait until the sender's stack has sent the judged segment that many times more."""
        injected = self._injected
        assert injected is not None
        assert injected.packet.tcp is not None
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

    def _await_judgement(self, packet: Packet, *, forged: bool, of_window: bool) -> None:
        from_server = packet.source == self._server_address
        sender, receiver = (self.server, self.client) if from_server else (self.client, self.server)
        hosts = (self._server, self.cast.client) if from_server else (self.cast.client, self._server)
        assert packet.tcp is not None
        offset = distance(sender.sent, packet.tcp.sequence) if forged else 0
        predicted = self._predict(packet) if of_window else None
        self._injected = Injected(*hosts, packet, forged, offset, receiver.window, receiver.sent, predicted)

    @property
    def _injected_from(self) -> str:
        assert self._injected is not None
        return self._injected.host

    def set_node_sysctl(self, key: str, value: str | int) -> None:
        """Set a sysctl of the node's namespace, named with slashes below ``/proc/sys``."""
        self.lab.hosts[self.cast.node].namespace.set_sysctls({key: value})

    def window_at_node(self) -> Tracker:
        """Return what the node's conntrack knows of the connection, by the model, from all packets that it judged.

        :raises InputError: nobody has asked this kernel what it makes of packets out of the window.
        """
        if self.behaviour is None:
            raise InputError("the kernel's behaviour is not known on this stage", cure="give it to the Stage")
        liberal = self.lab.hosts[self.cast.node].namespace.sysctl(BE_LIBERAL) != "0"
        tracker = Tracker(self.cast.client_address, self.behaviour, liberal)
        self.recorder.read()
        return tracker.after(judged.packet for judged in self._judged_at_node() if judged.packet.protocol == TCP)

    def _judged_at_node(self) -> list[Judged]:
        return [judged for judged in self.recorder.judged if judged.host == self.cast.node]

    def _predict(self, packet: Packet) -> Prediction | None:
        return None if self.behaviour is None else self.window_at_node().judge(packet)[0]

    def _take_errors(self) -> None:
        for end in self._ends or ():
            end.pending_error()

    def judgement(self) -> Judgement:
        """Return what conntrack made of the packet injected last.

        :raises UnseenError: the witness has no word on it.
        """
        assert self._injected is not None
        likeness = self._injected.packet.likeness
        for judged in reversed(self._judged_at_node()):
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
        witnessed = sum(judged.packet.protocol == UDP for judged in self._judged_at_node())
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
        self._client_says += FAREWELL
        with one_processor():
            await client.send(FAREWELL)
            if server.error is None:
                await self._end_well(client, server)
            elif client.error is None:
                # The client knows of nothing yet: its next bytes are answered with a reset.
                await client.receive(len(client.received) + 1)

    async def _end_well(self, client: TcpEnd, server: TcpEnd) -> None:
        """See the last bytes arrive, and be acknowledged without harm: an acknowledgement may be INVALID as well."""
        await server.receive(len(self._client_says))
        if server.error is None:
            await self.recorder.until(
                lambda: self.server.acknowledged == self.client.sent, "the server to acknowledge the last bytes"
            )
            await self._barrier()
            self._take_errors()
        self._complete = client.error is None and server.error is None

    def finish(self) -> Timeline:
        """Stop the instruments, read the counters, close the connection, and return what was seen."""
        self.recorder.stop()
        if lost := self.recorder.lost():
            self._faults.append(f"the captures lost {lost} packets")
        counted = self._count()
        entry = self._tables[0].entry(TCP, self.cast.client_address, self._target)
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

    def _count(self) -> Counters:
        """Read what all nodes counted."""
        nodes = [self.lab.hosts[node] for node in self._nodes]
        dropped = [dropped_as_invalid(node, self.family.version) for node in nodes]
        by_rule = [count for count in dropped if count is not None]
        return Counters(
            _added(counters(node.nft) for node in nodes),
            _added(table.statistics() for table in self._tables),
            sum(by_rule) if by_rule else None,
        )

    def _end(self, end: TcpEnd) -> SocketEnd:
        is_client = end.host == self.cast.client
        expected = stream(0, len(end.received)) if is_client else self._client_says[: len(end.received)]
        address = self.cast.client_address if is_client else self._server_address
        return SocketEnd(end.host, address, end.error, end.sent, len(end.received), bytes(end.received) == expected)


def _segment(
    sender: Side,
    receiver: Side,
    addresses: tuple[SocketAddress, SocketAddress],
    offset: int,
    payload: bytes,
    acknowledge: int,
    more: Mapping[str, object],
) -> Segment:
    fields: dict[str, Any] = {"flags": "PA" if payload else "A", "timestamps": sender.timestamps, **more}
    numbers = (sender.sent + offset, receiver.sent + acknowledge)
    return Segment(*addresses, *numbers, window=sender.last_window_field, payload=payload, **fields)


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _is_plain(segment: Segment) -> bool:
    """Tell whether it is for the window check alone to judge a segment."""
    return segment.flags in ("A", "PA") and segment.checksum is None and segment.header_words is None


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this process on the processor it is on: its packets then share one queue and keep their order."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {ctypes.CDLL(None).sched_getcpu()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
