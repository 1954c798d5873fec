# SPDX-License-Identifier: MIT
"""SCTP's handshake by packets of the lab's own, where the kernel has no SCTP sockets: RFC 9260, 5.1.

Both ends are raw sockets, so the packets take the ways of their hosts' stacks, and conntrack follows them as ever
(net/netfilter/nf_conntrack_proto_sctp.c).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lab.wire.sctp import Kind, SctpPacket, read

_SERVERS_TAG: Final = 0x5E70_0001
_COOKIE: Final = b"made by the lab\0"
_LONGEST: Final = 65_536  # bytes of a packet


class RawEnd:
    """One end of an association: a raw socket that does not block, and a port.

    :param number: which end among those that were made: of it are its tag, and the length of what it begins with.
    """

    def __init__(self, sock: socket.socket, port: int, number: int = 0) -> None:
        self._socket, self.port = sock, port
        self.tag = 1 + number
        self._padding = 128 + 4 * (number % 250)

    def init(self, port: int) -> SctpPacket:
        """Return what begins an association, of a length that the next one does not have."""
        return SctpPacket(self.port, port, Kind.INIT, initiate_tag=self.tag, padding=self._padding)

    def send(self, packet: SctpPacket, address: str) -> None:
        """Send a packet.

        :raises OSError: the host's stack did not take it: EPERM where a rule of its own dropped it.
        """
        self._socket.sendto(packet.data, (address, 0))

    def received(self, kind: Kind) -> Iterator[tuple[SctpPacket, str]]:
        """Take all that has come, and yield what is of a kind and for this port, with the address that it is from."""
        return (one for one in self._taken(kind) if one[0].destination_port == self.port)

    def begun_by(self, tag: int) -> tuple[SctpPacket, str] | None:
        """Take all that has come, and return what begins an association, for whichever port; None where nothing does.

        :param tag: of the end that begins it.
        """
        return next((one for one in self._taken(Kind.INIT) if one[0].initiate_tag == tag), None)

    def _taken(self, kind: Kind) -> Iterator[tuple[SctpPacket, str]]:
        while True:
            try:
                data, peer = self._socket.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            if self._socket.family == socket.AF_INET:  # raw(7): with the IP header; ipv6(7): without
                data = data[(data[0] & 0x0F) * 4 :]
            packet = read(data)
            if packet is not None and packet.kind is kind:
                yield packet, str(peer[0])


@dataclass(frozen=True)
class Association:
    """How far a handshake came.

    :param server: which of the servers has got its first packet, by its place; None where none has.
    :param peer: whom that one took for its client, as address and port.
    :param answered: whether the client has its answer.
    :param whole: whether both ends have all that they wait for.
    :param aborted_by: the place of an end on whose host the first packet came for a port where nobody listens, and was
        answered as SCTP answers that; the client's is behind the last server's. None where nothing of the kind was.
    :param refused: the errno with which a host's stack refused to send, 0 where none did.
    """

    server: int | None = None
    peer: tuple[str, int] = ("", 0)
    answered: bool = False
    whole: bool = False
    aborted_by: int | None = None
    refused: int = 0


def associate(
    client: RawEnd, address: str, port: int, servers: Sequence[RawEnd], settle: Callable[[], None]
) -> Association:
    """Have a client begin an association with an address, and whoever of the servers gets that answer it.

    :param settle: returns when nothing is under way any more.
    """
    found = Association()
    try:
        client.send(client.init(port), address)
        settle()
        ends = [*servers, client]
        arrived = [(place, begun) for place, end in enumerate(ends) if (begun := end.begun_by(client.tag))]
        for place, (init, source) in arrived:
            if place < len(servers) and init.destination_port == servers[place].port:
                found = replace(found, server=place, peer=(source, init.source_port))
                return _answered(client, (address, port), servers[place], found, settle)
        for place, (init, source) in arrived[:1]:  # out of the blue, and so aborted: RFC 9260, 8.4
            ends[place].send(SctpPacket(init.destination_port, init.source_port, Kind.ABORT, client.tag), source)
            settle()
            if any(one.tag == client.tag for one, _from in client.received(Kind.ABORT)):
                return replace(found, aborted_by=place)
    except OSError as error:
        return replace(found, refused=error.errno or 0)
    return found


def _answered(
    client: RawEnd, target: tuple[str, int], server: RawEnd, found: Association, settle: Callable[[], None]
) -> Association:
    """Carry the handshake on from where a server has got its first packet."""
    source, port = found.peer
    server.send(SctpPacket(server.port, port, Kind.INIT_ACK, client.tag, _SERVERS_TAG, _COOKIE), source)
    settle()
    answers = [one for one, _from in client.received(Kind.INIT_ACK) if one.tag == client.tag]
    if not answers:
        return found
    found = replace(found, answered=True)
    echo = SctpPacket(client.port, target[1], Kind.COOKIE_ECHO, answers[0].initiate_tag, cookie=_COOKIE)
    client.send(echo, target[0])
    settle()
    if not any(one.cookie == _COOKIE for one, _from in server.received(Kind.COOKIE_ECHO)):
        return found
    server.send(SctpPacket(server.port, port, Kind.COOKIE_ACK, client.tag), source)
    settle()
    return replace(found, whole=any(one.tag == client.tag for one, _from in client.received(Kind.COOKIE_ACK)))


def abort(client: RawEnd, address: str, port: int) -> None:
    """End an association at once, as a socket that lingers for no time does (RFC 9260, 9.1)."""
    client.send(SctpPacket(client.port, port, Kind.ABORT, _SERVERS_TAG), address)
