# SPDX-License-Identifier: MIT
"""A connection that somebody has in a lab that stands, and one packet that disturbs it.

Its numbers are read off it, and nothing touches it but that packet: the kernel tells of any socket how many bytes it
has sent and got (sock_diag(7)), and from where these are counted its handshake told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NoReturn

from lab.conntrack.netlink import ConntrackTable
from lab.errors import InputError
from lab.evidence.follow import Side
from lab.evidence.packet import RST, SEQUENCE_SPACE, TCP, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.evidence.timeline import ConnectionTimeline, SocketEnd
from lab.evidence.window import Prediction, Tracker
from lab.fabric.lab import Lab
from lab.netns.sockdiag import TcpSocket, connected
from lab.scenario.connection import ConnectionScenario
from lab.scenario.roles import Roles
from lab.vocabulary import Behaviour, Family

_WINDOW = 65_535  # bytes: of a kernel that does not say which window was offered last


@dataclass(frozen=True)
class Handshake:
    """How a connection began, as its first two packets passed its client's interface.

    :param client: the host.
    :param own: its address and port, and ``target`` the one that it asked.
    """

    client: str
    own: SocketAddress
    target: SocketAddress
    syn: Sighting
    syn_ack: Sighting

    def __str__(self) -> str:
        return f"{self.client} {self.own} > {self.target}"


def roles_of(lab: Lab, begun: Handshake) -> tuple[Roles, SocketAddress]:
    """Return who is who in a connection by the nodes' entries of it, and the client as its server knows it.

    :raises InputError: no node has one, or none translates the address that its client asked.
    """
    ends, judge = (begun.own, begun.target), ""
    for node in lab.topology.nodes * 2:  # the one that the client's packets come to first may stand behind another
        table = ConntrackTable(lab.hosts[node.name].namespace)
        try:
            entry = table.entry(TCP, *ends)
        finally:
            table.close()
        if entry is not None:
            ends, judge = entry.translated, judge or node.name
    server = lab.topology.host_of(ends[1].address)
    if not judge or server is None:
        raise InputError(f"no node has an entry of {begun}", cure="its packets pass none, or the entry is gone")
    if ends[1] == begun.target:
        message = f"{begun}: no node translates that address, and a case is about what comes by a Service"
        raise InputError(message, cure="connect to a Service's address; `lab run without-nat` is about the other way")
    return Roles(begun.client, judge, begun.own, ((server.name, ends[1]),), begun.target), ends[0]


class AdoptedScenario(ConnectionScenario):
    """A connection of somebody's own. Made inside the running event loop.

    :param begun: its handshake.
    :param peer: its client, as its server knows it.
    :raises InputError: its server has no such connection.
    """

    def __init__(
        self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour, begun: Handshake, peer: SocketAddress
    ) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._begun = begun
        [(self._server, self._server_address)] = roles.servers
        self._target, self._peer = begun.target, peer
        self._sockets = self._look()
        if len(self._sockets) < 2:
            missing = self._server if roles.client in self._sockets else roles.client
            raise InputError(f"{begun}: {missing} has no such connection any more", cure="open another one")

    def _look(self) -> dict[str, TcpSocket]:
        """Return the sockets of both ends that are connected still, by their hosts."""
        wanted = {self.roles.client: (self._begun.own, self._target), self._server: (self._server_address, self._peer)}
        found = {}
        for host, ends in wanted.items():
            for one in connected(self.lab.hosts[host].namespace):
                if (SocketAddress(*one.own), SocketAddress(*one.peer)) == ends:
                    found[host] = one
        return found

    # --- the connection -----------------------------------------------------------------------------

    async def establish(  # it is there as it is
        self,
        *,
        by_service: bool = True,  # noqa: ARG002
        source: str | None = None,  # noqa: ARG002
    ) -> None:
        """Read the connection's numbers off its sockets."""
        self._sockets |= self._look()
        client, server = self._sockets[self.roles.client], self._sockets[self._server]
        on_link = self._target if self._server == self.roles.node else self._server_address
        # What each has sent is what the other has got: what is under way may be lost, and is not waited for.
        sides = (
            _side(self._peer, self._begun.syn, self._begun.syn_ack, server.received, client.received, server),
            _side(on_link, self._begun.syn_ack, self._begun.syn, client.received, server.received, client),
        )
        self._following.adopt(self._server, *sides)
        if under_way := client.unanswered + server.unanswered:
            self.find(f"the connection was in use: {under_way} segments or bytes were under way")

    async def go_on(self) -> None:
        """See whether both sockets live: what they say is for their programs to know."""
        await self.barrier()
        self._complete = len(self._look()) == 2

    def next_bytes(self, length: int) -> NoReturn:
        """Refuse to make up what the server would say.

        :raises InputError: always.
        """
        message = f"the case sends the next {length} bytes of the server, and this connection is somebody's"
        raise InputError(message, cure="`lab inject` without --connection has one of its own")

    def window_at_node(self) -> Tracker:
        """Refuse to tell what conntrack knows: not all packets of the connection were seen.

        :raises InputError: always.
        """
        message = (
            "the case counts from the window's edges as the node knows them, from the connection's first packet on"
        )
        raise InputError(message, cure="`lab inject` without --connection has one of its own")

    def _predict(self, packet: Packet, nodes: tuple[str, ...]) -> dict[str, Prediction]:  # noqa: ARG002 - likewise
        return {}

    # --- the end ------------------------------------------------------------------------------------

    def finish(self) -> ConnectionTimeline:
        """Stop the instruments, read the counters, and return what was seen; the connection stays as it is."""
        common, living = self._stop(), self._look()
        first_numbers = self._following.first_numbers(self.roles.client)
        ends = tuple(self._became(host, one, alive=host in living) for host, one in (self._sockets | living).items())
        return ConnectionTimeline(
            **common, injected=self._injected, first_numbers=first_numbers, ends=ends, is_somebodys=True
        )

    def _became(self, host: str, one: TcpSocket, *, alive: bool) -> SocketEnd:
        own = self._begun.own if host == self.roles.client else self._server_address
        reset = any(
            seen.host == host
            and not seen.outgoing
            and seen.packet.destination == own
            and seen.packet.tcp is not None
            and seen.packet.tcp.flags & RST
            for seen in self.recorder.sightings
        )
        error = None if alive else "ECONNRESET" if reset else "EOF"
        return SocketEnd(host, own, error, one.sent, one.received, intact=True)


def _side(own: SocketAddress, first: Sighting, other: Sighting, sent: int, got: int, peer: TcpSocket) -> Side:
    """Return one side of a connection as its next packet would tell it.

    :param first: its first packet, and ``other``: the other side's.
    :param sent: bytes that it has sent so far, and ``got``: that it has got.
    :param peer: the other side's socket, which has its window.
    """
    tcp, others = first.packet.tcp, other.packet.tcp
    if tcp is None or others is None:
        raise TypeError("no handshake of TCP")
    window = peer.window if peer.window is not None else _WINDOW
    timestamps = None
    if tcp.timestamps and others.timestamps:
        # A clock of milliseconds, whatever HZ is (TCP_TS_HZ, include/net/tcp.h).
        passed = (time.time_ns() - first.time) // 1_000_000
        timestamps = ((tcp.timestamps[0] + passed) % SEQUENCE_SPACE, others.timestamps[0])
    return Side(
        own,
        tcp.sequence,
        (tcp.sequence + 1 + sent) % SEQUENCE_SPACE,
        (others.sequence + 1 + got) % SEQUENCE_SPACE,
        window,
        tcp.window_scale,
        tcp.sack_permitted,
        timestamps,
        min(window >> (peer.scales[0] if others.window_scale is not None else 0), 0xFFFF),
    )
