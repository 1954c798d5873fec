# SPDX-License-Identifier: MIT
"""A connection between two ends that send what a case tells them to: what no stack would send, or not in this order.

The kernels of both ends are kept from hearing TCP, and those of nodes from saying any of their own, so nobody answers
but the script; conntrack's own state is all that moves. What is judged is the packet alone: there is no socket that
could live or die.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from lab.errors import InputError
from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import TCP, Packet, SocketAddress, decode
from lab.evidence.timeline import Injected, PacketTimeline
from lab.fabric.lab import Lab
from lab.scenario.base import Scenario
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import Roles
from lab.topology.values import IPAddress
from lab.verdict import packet
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import Segment, craft

#: What both SYNs offer unless the script says otherwise.
OPTIONS: Final = (("SAckOK", b""), ("WScale", 10))
_FIRST: Final = 1_000_000  # the client's initial sequence number; the server's is twice that
WINDOW: Final = 500  # as both sides write it; scaled, 512,000 bytes

_SILENCE: Final = """table inet lab_silence {{
chain of {{
type filter hook {hook} priority raw; policy accept;
{match} meta l4proto tcp drop
}}
}}
"""


def _deaf() -> str:
    """Return the rules of an end, whose kernel hears nothing."""
    return _SILENCE.format(hook="prerouting", match="")


def _mute(own: Iterable[IPAddress], family: Family) -> str:
    """Return the rules of a node, whose kernel says nothing by its own addresses.

    What a server answers to a client that is masqueraded is for such an address. Where it is INVALID nothing translates
    it back, and the node's own stack gets it, which would answer by a RST.
    """
    addresses = ", ".join(map(str, own))
    return _SILENCE.format(hook="output", match=f"{family.nft} saddr {{ {addresses} }}" if addresses else "")


class Peer:
    """One end: it sends what it is told to, and nothing else.

    Numbers are relative, sequence numbers to this side's first, acknowledgements to the other's. What is not given is
    as a stack would have it: the number after the last, acknowledging all that the other side sent.

    :ivar first: its initial sequence number.
    :ivar next: the number after all that it sent, relative.
    """

    def __init__(
        self, speak: Callable[[Peer, Segment], Packet], own: SocketAddress, to: SocketAddress, first: int
    ) -> None:
        self._speak = speak
        self.own, self.to = own, to
        self.other: Peer
        self.begin(first)

    def begin(self, first: int) -> None:
        """Begin anew with another initial sequence number: the next connection of the same tuple."""
        self.first, self.next = first, 0

    def send(
        self,
        flags: str,
        sequence: int | None = None,
        acknowledge: int | None = None,
        *,
        payload: bytes = b"",
        window: int = WINDOW,
        options: Sequence[tuple[str, object]] = (),
    ) -> Packet:
        """Send a segment, with flags as scapy writes them."""
        sequence = self.next if sequence is None else sequence
        acknowledge = self.other.next if acknowledge is None else acknowledge
        numbers = (self.first + sequence, self.other.first + acknowledge if "A" in flags else 0)
        segment = Segment(self.own, self.to, *numbers, flags, window, payload, options=options)
        self.next = max(self.next, sequence + len(payload) + ("S" in flags) + ("F" in flags))
        return self._speak(self, segment)

    def syn(self) -> Packet:
        """Ask for a connection."""
        return self.send("S", 0, window=64240, options=OPTIONS)

    def syn_ack(self, *, acknowledge: int | None = None) -> Packet:
        """Grant it."""
        return self.send("SA", 0, acknowledge, window=65160, options=OPTIONS)

    def ack(self, sequence: int | None = None, acknowledge: int | None = None) -> Packet:
        """Acknowledge."""
        return self.send("A", sequence, acknowledge)

    def data(self, length: int, sequence: int | None = None) -> Packet:
        """Send some bytes."""
        return self.send("PA", sequence, payload=b"x" * length)

    def fin(self) -> Packet:
        """Send a FIN: nothing more is to be sent."""
        return self.send("FA")

    def rst(self, sequence: int | None = None) -> Packet:
        """Reset."""
        return self.send("R", sequence)


class ScriptedScenario(Scenario[PacketTimeline]):
    """One lab in which both ends of a connection are scripted.

    :ivar client: and ``server``: the two ends; the client talks to the VIP where there is one.
    """

    decide = staticmethod(packet.decide)

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._target = roles.service_address or self._server_address
        ends = dict.fromkeys((roles.client, *(host for host, _address in roles.servers)))
        for host in {**ends, **dict.fromkeys(self._nodes.names)}:
            nft = lab.hosts[host].nft
            nft.run(_deaf() if host in ends else _mute(lab.topology.addresses(host, family), family))
            lab.undo(partial(nft.run, "delete table inet lab_silence\n"))
        self._sent: list[Packet] = []
        self._asked = 0
        self._connections = 0
        self._meet(roles.client_address)

    def _meet(self, client_address: SocketAddress) -> None:
        self._own = self._peer = client_address
        first = _FIRST + 2 * _FIRST * self._connections
        self._connections += 1
        self.client = Peer(self._speak, client_address, self._target, first)
        self.server = Peer(self._speak, self._server_address, client_address, first + _FIRST)
        self.client.other, self.server.other = self.server, self.client

    def begin(self, port: int) -> None:
        """Begin another connection, from another port of the client's, and with numbers of its own.

        By these its packets are told from those of the others: a node may give it another port.
        """
        self._meet(SocketAddress(self.roles.client_address.address, port))

    def _speak(self, peer: Peer, segment: Segment) -> Packet:
        data = craft(segment)
        packet = decode(data)
        if packet is None:
            raise InputError(f"the lab cannot read the segment that it is to send: {segment}")
        host, destination = self._host_of(peer), packet.destination.address
        if self.roles.node in self.passed(host, destination):
            self._sent.append(packet)  # what passes the node by is not judged
        self._injector(host, destination).send(data)
        return packet

    def _host_of(self, peer: Peer) -> str:
        return self.roles.client if peer is self.client else self._server

    async def handshake(self) -> None:
        """Connect, as two stacks would.

        :raises RefusedError: the node did not translate the answer back.
        """
        syn = self.client.syn()
        await self.judged()
        if not self._find_server(syn):
            raise self.refuse(self.unanswered("the SYN came to no server"), f"it {self.lost_where(syn)}")
        answer = self.server.syn_ack()
        await self.judged()
        came = self.seen(self.roles.client, flags="SA", outgoing=False)
        sources = [one.packet.source for one in came if one.packet.likeness == answer.likeness]
        if sources != [self._target]:
            if sources:
                raise self.refuse(f"the SYN,ACK came from {sources[0].address}")
            raise self.refuse(self.unanswered("the SYN,ACK never came back"), f"it {self.lost_where(answer)}")
        self.client.ack()
        await self.judged()
        self._complete = True

    def _find_server(self, syn: Packet) -> bool:
        """Take the server that the node's rules chose, and have it answer to whom the SYN came from.

        Whom that should be, the entries say: a node on the way may masquerade.
        """
        for host, address in self.roles.servers:
            for came in self.seen(host, outgoing=False):
                # A bridge that has not learned where somebody is floods its ports: others get a copy of the frame.
                if came.packet.likeness == syn.likeness and came.packet.destination == address:
                    self._server, self._server_address = host, address
                    self.server.own, self.server.to = address, came.packet.source
                    source, destination = self._nodes.translated(syn)
                    self._peer = source
                    if (came.packet.source, came.packet.destination) != (source, destination):
                        words = f"the SYN came as {came.packet.source} > {came.packet.destination}"
                        self._faults.append(f"{words}, and by the entries on its way it is {source} > {destination}")
                    return True
        return False

    async def ask(self) -> Packet:
        """Have the client send a SYN, and the server answer from then on to whom it came from; return the SYN.

        Where a node masquerades, each connection may come from another port.
        """
        syn = self.client.syn()
        await self.barrier()
        self._find_server(syn)
        return syn

    async def last_judgement(self) -> Judgement:
        """Return what the node's conntrack made of the one segment that was sent since it was asked last.

        :raises UnseenError: others came as well, which the script did not send.
        """
        judged = await self.judged()
        if len(judged) != 1:
            raise UnseenError(f"one segment was sent, and the node judged {len(judged)}: another host answered as well")
        return judged[0].judgement

    async def judged(self) -> list[Judged]:
        """Wait until what was sent since the last call has had its effect; return what the node made of it, in order.

        :raises UnseenError: the node has not judged it.
        """

        def so_far() -> list[Judged]:
            return [one for one in self._judged_at_node() if one.packet.protocol == TCP][self._asked :]

        sent = self._sent[self._asked :]
        await self.until(lambda: len(so_far()) >= len(sent), "the judgement of every segment")
        await self.barrier()
        judged = so_far()
        self._asked += len(judged)
        if [one.packet for one in judged] != sent:
            self._faults.append("the node judged other segments than the script's, or in another order")
        return judged

    async def expect_judgements(self, *judgements: Judgement) -> None:
        """Expect what the node makes of each segment that was sent since it was asked last."""
        found = tuple(one.judgement for one in await self.judged())
        self.expect(f"the judgements {', '.join(judgements)}", found == judgements, ", ".join(found))

    def judge(self, packet: Packet) -> None:
        """Make a segment the one that the trial is about."""
        is_client = packet.source == self.client.own
        hosts = (self.roles.client, self._server) if is_client else (self._server, self.roles.client)
        receiver = self.server if is_client else self.client
        nodes = self.passed(hosts[0], packet.destination.address)
        self._injected = Injected(*hosts, packet, True, None, WINDOW, receiver.first + receiver.next, nodes=nodes)

    def finish(self) -> PacketTimeline:
        """Stop the instruments, read the counters, and return what was seen."""
        first = {self.roles.client: self.client.first, self._server: self.server.first}
        return PacketTimeline(**self._stop(), injected=self._injected, first_numbers=first)
