"""A live TCP connection through a running lab, and the words to disturb it with."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from lab.errors import InputError, raise_if_of_machine
from lab.evidence.entry import Entry
from lab.evidence.follow import Connection, Side, distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import FIN, PSH, RST, SYN, TCP, Packet, SocketAddress, decode
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Injected, SocketEnd, Timeline, unreachable
from lab.evidence.window import Prediction, Tracker, by_state
from lab.fabric.lab import Lab
from lab.scenario.base import HalfOpenError, RefusedError, Scenario
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import Roles
from lab.topology.ways import way_out
from lab.traffic.tcp import A_MOMENT, FAREWELL, REQUEST, Attempt, TcpEnd, listen, stream
from lab.vocabulary import BE_LIBERAL, Behaviour, Family
from lab.wire.craft import IcmpError, Segment, craft

_FIRST_PART: Final = 1000  # bytes of the stream before the case disturbs the connection
_SECOND_PART: Final = 4000  # and after it
#: In bytes: what the client asks for, and gets unless something is wrong.
WHOLE: Final = _FIRST_PART + _SECOND_PART
QUESTION: Final = b"are you there?\n"
_WORD: Final = 500  # bytes that the server says where the case is about its own next segment
# IP_MTU of ip(7), IPV6_MTU of ipv6(7): Python has no names for them.
_PATH_MTU: Final = {Family.IPV4: (socket.IPPROTO_IP, 14), Family.IPV6: (socket.IPPROTO_IPV6, 24)}
_TCP_REPAIR: Final = 19  # include/uapi/linux/tcp.h


class ConnectionScenario(Scenario):
    """One connection in one lab. Made inside the running event loop.

    :param behaviour: what this kernel does with packets out of the window; the scenario then predicts what it will do.
    """

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._connection = Connection()  # as the packets at the server's interface tell it
        self._server_on_link = self._server_address  # the server, as the packets on its link have it
        self._ends: tuple[TcpEnd, TcpEnd] | None = None
        self._forged: set[tuple[object, ...]] = set()
        self._client_says = REQUEST
        self._half_closed = False
        self._answers: tuple[Packet, ...] = ()
        self._half_open: TcpEnd | None = None
        self.recorder.on_sighting(self._follow)

    def _follow(self, sighting: Sighting) -> None:
        # A forged packet tells nothing of what the server's stack has sent.
        on_link = sighting.host == self._server and sighting.interface != LOCAL
        if on_link and sighting.packet.likeness not in self._forged:
            self._connection.see(sighting.packet)

    def _follow_server(self, end: TcpEnd) -> None:
        """Follow the connection at the server that the node's rules chose, from its first packet on."""
        self._server, self._server_address, self._peer = end.host, end.own_address, end.peer_address
        # The node that judges translates: where the server is on it, that is behind its link.
        self._server_on_link = self._target if end.host == self.roles.node else end.own_address
        self._connection = Connection()
        for sighting in self.recorder.sightings:
            if self._peer in (sighting.packet.source, sighting.packet.destination):
                self._follow(sighting)

    @property
    def server(self) -> Side:
        """The server's side of the connection: ``sent`` is its SND.NXT, ``acknowledged`` its RCV.NXT."""
        return self._side(self._server_on_link)

    @property
    def client(self) -> Side:
        """The client's side of the connection."""
        return self._side(self._peer)

    def _side(self, address: SocketAddress) -> Side:
        side = self._connection.side(address)
        if side is None:
            raise UnseenError(f"the capture on {self._server} has seen nothing that {address} sent in a connection")
        return side

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

    async def establish(self, *, by_service: bool = True) -> None:
        """Connect the client, by the VIP or straight to the pod; move the first bytes; wait until nothing is in flight.

        :raises InputError: by the VIP, where the topology has no service of this family.
        :raises RefusedError: there is no connection; says how it is known.
        """
        if by_service:
            if self.roles.service_address is None:
                raise InputError(f"the topology has no TCP service with an {self.family} address")
            self._target = self.roles.service_address
        self._ends = await self._handshake(self.roles.client_address)
        for end in self._ends:
            self.lab.keep(end)
        client, server = self._ends
        self._follow_server(server)
        await client.send(REQUEST)
        await server.receive(len(REQUEST))
        await server.send(stream(0, _FIRST_PART))
        await client.receive(_FIRST_PART)
        await self.recorder.until(lambda: self._connection.quiet, "both ends to acknowledge everything")
        if self.recorder.is_under_way:  # an acknowledgement of a timer's, that data has overtaken
            await self.barrier()

    async def _handshake(self, own: SocketAddress) -> tuple[TcpEnd, TcpEnd]:
        hosts = self.lab.hosts
        servers = [(host, hosts[host].namespace, address) for host, address in self.roles.servers]
        listeners = [(host, listen(namespace, address)) for host, namespace, address in servers]
        try:
            namespace = hosts[self.roles.client].namespace
            async with Attempt(self.roles.client, namespace, own, listeners, self._target) as attempt:
                if not await attempt.over_within(A_MOMENT):
                    # Whatever is left of the handshake is behind these.
                    for host, _listener in listeners:
                        await self.barrier(host)
                    if not attempt.is_connected:
                        self._refusal = self._unanswered()
                        raise RefusedError(f"no connection to {self._target}: {self._refusal}")
                    self._check_half_open(attempt)
                ends = await attempt.ends()
                self._refusal, self._trace = None, ""  # an earlier attempt's, where the case makes several
                return ends
        except OSError as error:
            raise_if_of_machine(error)
            self._refusal = errno.errorcode.get(error.errno or 0, str(error))
            if way_out(self.lab.topology, self.roles.client, self._target.address) is None:
                self._without_route = True
                self._refusal += f": {self.roles.client} has no route to {self._target.address}"
            raise RefusedError(f"no connection to {self._target}: {self._refusal}") from None
        finally:
            for _host, listener in listeners:
                listener.close()

    def _unanswered(self) -> str:
        """Tell what became of a handshake that nobody refused."""
        reached = [host for host, address in self.roles.servers if self.seen(host, destination=address, flags="S")]
        if not reached:
            self._trace_last(self.roles.client, "S")
            return "the SYN came to no server"
        answers = self.seen(self.roles.client, flags="SA", outgoing=False)
        if not answers:
            self._trace_last(reached[0], "SA")
            return "the SYN,ACK never came back"
        return f"the SYN,ACK came from {answers[0].packet.source.address}"

    def _trace_last(self, host: str, flags: str) -> None:
        """Note where the last segment of a handshake that a host sent was seen last."""
        if sent := self.seen(host, flags=flags, outgoing=True):
            self._trace = f"it {self._lost_where(sent[-1].packet)}"

    def _check_half_open(self, attempt: Attempt) -> None:
        """Refuse a handshake that its client takes for done, and whose last acknowledgement came to no server.

        The barriers went behind it, so it does not come any more; and what the server asks it again for is lost alike.

        :raises HalfOpenError: it is one.
        """
        client = self.roles.client
        acknowledgements = [
            sighting.packet
            for sighting in self.seen(client, source=attempt.own_address, flags="A", outgoing=True)
            if sighting.packet.tcp is not None and not sighting.packet.tcp.flags & (SYN | RST)
        ]
        for acknowledgement in acknowledgements:
            for host, _address in self.roles.servers:
                if any(one.packet.likeness == acknowledgement.likeness for one in self.seen(host, outgoing=False)):
                    return
        syns = [(host, address) for host, address in self.roles.servers if self.seen(host, flags="SA", outgoing=True)]
        if not acknowledgements or not syns:
            return
        self._server, self._server_address = syns[0]
        first = acknowledgements[0]
        nodes = self._passed(client, self._server_address.address)
        self._injected = Injected(client, self._server, first, False, None, 0, 0, nodes=nodes)
        self._half_open = self.lab.keep(attempt.client_end())
        self.stand_still(
            f"half open: {client} is connected, {self._server} is not",
            f"the ACK of the handshake {self._lost_where(first)}",
        )
        raise HalfOpenError(f"no connection to {self._target}: {', '.join(self._standstill)}")

    async def server_speaks(self) -> None:
        """Let the server's own stack send its next bytes, to be judged, and wait until their effect is over."""
        await self._speak(self.server_end, stream(self.server_end.sent, _WORD))

    async def client_speaks(self, *, judged: bool = True) -> None:
        """Let the client's own stack send something, and wait until its effect is over.

        :param judged: it is what the trial is about.
        """
        self._client_says += QUESTION
        await self._speak(self.client_end, QUESTION, judged=judged)

    async def _speak(self, end: TcpEnd, words: bytes, *, judged: bool = True) -> None:
        seen = len(self.recorder.sightings)
        await end.send(words)
        await self.barrier()
        if judged:
            self._await_judgement_of_sent(end.host, seen, PSH)
        self._take_errors()

    def _await_judgement_of_sent(self, host: str, seen: int, flag: int) -> None:
        """Remember the first segment with a flag that a host's own stack sent since, as what the trial is about."""
        sent = (sighting.packet for sighting in self.recorder.sightings[seen:] if _is_sent_by(sighting, host))
        packet = next((one for one in sent if one.tcp is not None and one.tcp.flags & flag), None)
        if packet is None:
            raise UnseenError(f"the capture on {host} saw nothing of what its stack sent")
        self._await_judgement(packet, forged=False, of_window=False)

    async def client_aborts(self) -> None:
        """Let the client close at once with a RST, and wait until its effect is over. All has been said by then."""
        self.client_end.close()
        await self.barrier()
        self._take_errors()
        self._complete = True

    async def client_vanishes(self) -> None:
        """Let the client's socket be gone without a word, as those of a pod are that was replaced by another."""
        self.client_end.socket.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)  # closed like that it sends nothing
        await self.client_aborts()

    async def client_leaves(self) -> None:
        """Let the client say that it has nothing more to say, to be judged: its FIN may never be acknowledged."""
        self._half_closed = True
        seen = len(self.recorder.sightings)
        self.client_end.socket.shutdown(socket.SHUT_WR)
        await self.barrier()
        self._await_judgement_of_sent(self.client_end.host, seen, FIN)

    async def half_close(self) -> None:
        """Let the client say that it has nothing more to say (shutdown(2), SHUT_WR), and wait until that is known."""
        self._half_closed = True
        self.client_end.socket.shutdown(socket.SHUT_WR)
        await self.barrier()
        self.server_end.acknowledge()

        def is_told() -> bool:
            """Tell whether the client has the acknowledgement: what has left the server may not be at the node yet."""
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
        """Let both ends go on with their stream as if nothing had happened, to its end or to theirs."""
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
        """See the last bytes arrive, and be acknowledged without harm: an acknowledgement may be INVALID as well."""
        await server.receive(len(self._client_says))
        if server.error is None:
            await self.recorder.until(
                lambda: self.server.acknowledged == self.client.sent, "the server to acknowledge the last bytes"
            )
            await self.barrier()
            self._take_errors()
        self._complete = client.error is None and server.error is None

    # --- forged packets -----------------------------------------------------------------------------

    def next_bytes(self, length: int) -> bytes:
        """Return what the server will send next."""
        return stream(self.server_end.sent, length)

    def from_server(self, offset: int = 0, payload: bytes = b"", *, acknowledge: int = 0, **more: object) -> Segment:
        """Return a segment as the server's own stack would send it next, but for what is said otherwise.

        :param offset: added to its sequence number.
        :param acknowledge: added to its acknowledgement. Left at 0 it acknowledges exactly what the server has
            received: the client's reset copies that number, and RFC 5961 (3.2) lets a reset through only where it is
            exact.
        :param more: other fields of :class:`lab.wire.craft.Segment`, such as flags and options.
        """
        addresses = (self._server_on_link, self._peer)
        return _segment(self.server, self.client, addresses, offset, payload, acknowledge, more)

    def from_client(self, offset: int = 0, payload: bytes = b"", *, acknowledge: int = 0, **more: object) -> Segment:
        """Return a segment as the client's own stack would send it next, but for what is said otherwise."""
        addresses = (self.roles.client_address, self._target)
        return _segment(self.client, self.server, addresses, offset, payload, acknowledge, more)

    def too_big_from_server(self, mtu: int) -> IcmpError:
        """Return the ICMP error of a link behind the server: it is too small for what the client sends.

        It quotes the client's next segment as it would come there, so to the pod's address (RFC 1191; RFC 8201).

        :param mtu: that link's, in bytes.
        """
        quoted = _segment(self.client, self.server, (self._peer, self._server_address), 0, b"", 0, {})
        kind, code = (3, 4) if self.family is Family.IPV4 else (2, 0)
        return IcmpError(self._server_address.address, self._peer.address, kind, code, quoted, mtu)

    async def inject(self, packet: Segment | IcmpError) -> None:
        """Put a packet on its sender's link that the sender's stack never made, and wait until its effect is over."""
        data = craft(packet)
        seen = decode(data)
        if seen is None:
            raise InputError(f"the lab cannot read the packet that it is to inject: {packet}")
        self._forged.add(seen.likeness)
        host = self._await_judgement(seen, forged=True, of_window=_is_plain(packet))
        injector, before = self._injector(host, seen.destination.address), len(self.recorder.sightings)
        injector.send(data)
        await self.barrier()
        since = self.recorder.sightings[before:]
        receiver = self._to_judge().receiver
        came = {one.packet.likeness for one in since if one.host == self.roles.node and not one.outgoing}
        self._answers = tuple(
            one.packet
            for one in since
            if one.packet.tcp
            and (
                _is_sent_by(one, receiver)
                # What a node did not get it has said itself: to masqueraded clients' answers it is the receiver.
                or (self.taken_by_node and _is_sent_by(one, self.roles.node) and one.packet.likeness not in came)
            )
        )
        self._take_errors()

    async def provoke(self, packet: Segment) -> None:
        """Inject a segment, and let the RST by which its receiver's own stack answers be the one to be judged."""
        seen = len(self.recorder.sightings)
        await self.inject(packet)
        self._await_judgement_of_sent(self._to_judge().receiver, seen, RST)

    def _await_judgement(self, packet: Packet, *, forged: bool, of_window: bool) -> str:
        """Remember a packet as the one that the trial is about; return the host that it comes from."""
        from_server = packet.source.address == self._server_address.address
        sender, receiver = (self.server, self.client) if from_server else (self.client, self.server)
        hosts = (self._server, self.roles.client) if from_server else (self.roles.client, self._server)
        offset = (distance(sender.sent, packet.tcp.sequence) if forged else 0) if packet.tcp else None
        nodes = self._passed(hosts[0], packet.destination.address)
        predictions = self._predict(packet, nodes) if of_window else {}
        self._injected = Injected(*hosts, packet, forged, offset, receiver.window, receiver.sent, predictions, nodes)
        return hosts[0]

    # --- what is known of it ------------------------------------------------------------------------

    @property
    def unheard(self) -> bool:
        """True when the packet to be judged reached nobody, and no socket has failed for it."""
        return not self._has_come(self._to_judge()) and all(end.error is None for end in self._ends or ())

    def path_mtu(self) -> int:
        """Return what the client's kernel takes for the path's MTU, in bytes (ip(7), ipv6(7))."""
        level, option = _PATH_MTU[self.family]
        return self.client_end.socket.getsockopt(level, option)

    @property
    def unreachable(self) -> bool:
        """True when the sender of the packet to be judged was told by ICMP that there is no way."""
        injected = self._to_judge()
        self.recorder.read()
        return unreachable(injected, self.recorder.sightings) is not None

    @property
    def taken_by_node(self) -> bool:
        """True when the packet to be judged came to the node's own sockets."""
        injected = self._to_judge()
        self.recorder.read()
        return any(
            sighting.interface == LOCAL and sighting.packet.likeness == injected.packet.likeness
            for sighting in self.recorder.sightings
        )

    def window_at_node(self) -> Tracker:
        """Return what the node's conntrack knows of the connection, by the model, from all packets that it judged.

        :raises InputError: nobody has asked this kernel what it makes of packets out of the window.
        :raises UnseenError: the node has no entry of the connection.
        """
        entry = self.entry()
        if entry is None:
            raise UnseenError("the node has no entry of the connection, so it knows no window")
        return self._tracker(self.roles.node, entry)

    def _tracker(self, node: str, entry: Entry) -> Tracker:
        """Return what a node knows of an entry, by the model, from the packets of it that came to this node."""
        if self.behaviour is None:
            raise InputError(
                "the kernel's behaviour is not known on this scenario", cure="give it to the ConnectionScenario"
            )
        liberal = self.lab.hosts[node].namespace.sysctl(BE_LIBERAL) != "0"
        return Tracker(entry.original[0], self.behaviour, liberal).after(self._packets_of(node, entry))

    def _packets_of(self, node: str, entry: Entry) -> list[Packet]:
        """Return the packets that a node's entry has seen: it begins with a NEW one."""
        self.recorder.read()
        packets: list[Packet] = []
        for judged in self.recorder.judged:
            packet = judged.packet
            own = judged.host == node and packet.protocol == TCP
            if own and (packet.source, packet.destination) in (entry.original, entry.reply):
                packets = [packet] if judged.judgement is Judgement.NEW else [*packets, packet]
        return packets

    def _predict(self, packet: Packet, nodes: Iterable[str]) -> dict[str, Prediction]:
        """Return what the model expects of a segment at each node on its way that has an entry of the connection."""
        found: dict[str, Prediction] = {}
        for node in nodes if self.behaviour is not None else ():
            entry = self._entry_at(node)
            if entry is not None:
                from_client = packet.source == entry.original[0]
                found[node] = (
                    by_state(entry.tcp_state, from_client=from_client) or self._tracker(node, entry).judge(packet)[0]
                )
        return found

    def _take_errors(self) -> None:
        for end in self._ends or ():
            end.pending_error()

    def expect_answer(self, known: str, *, stranger: str = "RST") -> bool:
        """Expect what the receiver's own stack has said to the packet that was injected last: nothing to one unheard.

        :param known: the flags of its answer, as tcpdump's users read them ("RST,ACK"), where the packet comes from the
            address that it talks to; empty for silence.
        :param stranger: the same where the packet was INVALID, and comes from an address that it does not know.
        """
        leaked = Judgement.INVALID in self.words_of_nodes().values() and self._target != self._server_address
        wanted = "" if self.unheard else stranger if leaked else known
        seen = " and ".join(one.tcp.flag_names for one in self._answers if one.tcp)
        return self.expect(f"{wanted or 'silence'} for an answer to it", seen == wanted, seen or "silence")

    def answers(self) -> tuple[Packet, ...]:
        """Return what the receiver's own stack has said since to the packet that was injected last."""
        return self._answers

    def expect_error(self, host: str, error: str | None) -> bool:
        """Expect a host's socket to have failed with an errno of this name, or not to have failed."""
        self._take_errors()
        found = next((end.error for end in self._ends or () if end.host == host), None)
        return self.expect(f"{host}'s socket: {error or 'no error'}", found == error, found or "no error")

    def finish(self) -> Timeline:
        """Stop the instruments, read the counters, close the connection, and return what was seen."""
        timeline = super().finish()
        self._take_errors()  # what ended an end may have come while the other was waited for
        sockets = self._ends or ((self._half_open,) if self._half_open is not None else ())
        ends = tuple(self._end(end) for end in sockets)
        for end in sockets:
            end.close()
        sides = {self._server: self._server_on_link, self.roles.client: self._peer}
        first = {host: side.first for host, address in sides.items() if (side := self._connection.side(address))}
        return replace(timeline, ends=ends, first_numbers=first)

    def _end(self, end: TcpEnd) -> SocketEnd:
        is_client = end.host == self.roles.client
        expected = stream(0, len(end.received)) if is_client else self._client_says[: len(end.received)]
        address = self.roles.client_address if is_client else self._server_address
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


def _is_sent_by(sighting: Sighting, host: str) -> bool:
    return sighting.host == host and sighting.outgoing


def _is_plain(packet: Segment | IcmpError) -> bool:
    """Tell whether it is for the window check alone to judge a segment."""
    if isinstance(packet, IcmpError):
        return False
    return packet.flags in ("A", "PA") and packet.checksum is None and packet.header_words is None
