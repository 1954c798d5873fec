# SPDX-License-Identifier: MIT
"""A live TCP connection through a running lab, and the packets that are to disturb it."""

from __future__ import annotations

import socket
from typing import Final

from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import RST, Packet, decode
from lab.evidence.sighting import LOCAL
from lab.evidence.timeline import ConnectionTimeline, unreachable
from lab.evidence.window import Tracker
from lab.fabric.lab import Lab
from lab.scenario.base import E
from lab.scenario.forged import is_plain, next_segment
from lab.scenario.prediction import tracker
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import Roles
from lab.scenario.stream import Stream, is_sent_by
from lab.traffic.tcp import stream
from lab.verdict import connection
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import IcmpError, Segment, craft

# IP_MTU of ip(7), IPV6_MTU of ipv6(7): Python has no names for them.
_PATH_MTU: Final = {Family.IPV4: (socket.IPPROTO_IP, 14), Family.IPV6: (socket.IPPROTO_IPV6, 24)}


class Disturbed(Stream[E]):
    """One connection in one lab, and forged packets on its links. Made inside the running event loop.

    :param behaviour: what this kernel does with packets out of the window; what it will do is then predicted.
    """

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._answers: tuple[Packet, ...] = ()

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
        addresses = (self._following.server_on_link, self._peer)
        return next_segment(self.server, self.client, addresses, offset, payload, acknowledge, more)

    def from_client(self, offset: int = 0, payload: bytes = b"", *, acknowledge: int = 0, **more: object) -> Segment:
        """Return a segment as the client's own stack would send it next, but for what is said otherwise."""
        addresses = (self._own, self._target)
        return next_segment(self.client, self.server, addresses, offset, payload, acknowledge, more)

    def too_big_from_server(self, mtu: int) -> IcmpError:
        """Return the ICMP error of a link behind the server: it is too small for what the client sends.

        It quotes the client's next segment as it would come there, so to the pod's address (RFC 1191; RFC 8201).

        :param mtu: that link's, in bytes.
        """
        quoted = next_segment(self.client, self.server, (self._peer, self._server_address), 0, b"", 0, {})
        kind, code = (3, 4) if self.family is Family.IPV4 else (2, 0)
        return IcmpError(self._server_address.address, self._peer.address, kind, code, quoted, mtu)

    async def inject(self, packet: Segment | IcmpError) -> None:
        """Put a packet on its sender's link that the sender's stack never made, and wait until its effect is over."""
        data = craft(packet)
        seen = decode(data)
        if seen is None:
            raise InputError(f"the lab cannot read the packet that it is to inject: {packet}")
        self._following.forged.add(seen.likeness)
        host = self._await_judgement(seen, forged=True, of_window=is_plain(packet))
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
            and self._is_between_its_ports(one.packet)
            and (
                is_sent_by(one, receiver)
                # What a node did not get it has said itself: to masqueraded clients' answers it is the receiver.
                or (self.taken_by_node and is_sent_by(one, self.roles.node) and one.packet.likeness not in came)
            )
        )
        self._take_errors()

    def _is_between_its_ports(self, packet: Packet) -> bool:
        """Check whether a packet is between the connection's ports: in a lab that stands others talk as well."""
        ends = {self._own.port, self._peer.port}, {self._target.port, self._server_address.port}
        return any(packet.source.port in one and packet.destination.port in other for one, other in (ends, ends[::-1]))

    async def provoke(self, packet: Segment) -> None:
        """Inject a segment, and have the RST judged by which its receiver's own stack answers."""
        seen = len(self.recorder.sightings)
        await self.inject(packet)
        self._await_judgement_of_sent(self._to_judge().receiver, seen, RST)

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
        return tracker(self.lab, self.recorder, self.behaviour, self.roles.node, entry)

    def expect_answer(self, known: str, *, stranger: str = "RST") -> bool:
        """Expect what the receiver's own stack has said to the packet that was injected last: nothing to one unheard.

        :param known: the flags of its answer, as tcpdump's users read them ("RST,ACK"), where the packet comes from the
            address that it talks to; empty for silence.
        :param stranger: the same where the packet was INVALID, and comes from an address that it does not know.
        """
        leaked = Judgement.INVALID in self.judgements_of_nodes().values() and self._target != self._server_address
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


class ConnectionScenario(Disturbed[ConnectionTimeline]):
    """One connection in one lab, which a packet disturbs. Made inside the running event loop.

    :param behaviour: what this kernel does with packets out of the window; what it will do is then predicted.
    """

    decide = staticmethod(connection.decide)

    def finish(self) -> ConnectionTimeline:
        """Stop the instruments, read the counters, close the connection, and return what was seen."""
        common, first_numbers = self._stop(), self._following.first_numbers(self.roles.client)
        ends = self._close_sockets()
        return ConnectionTimeline(**common, injected=self._injected, first_numbers=first_numbers, ends=ends)
