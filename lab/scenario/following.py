# SPDX-License-Identifier: MIT
"""The connection as the packets at its server's interface tell it."""

from __future__ import annotations

from lab.evidence.follow import Connection, Side
from lab.evidence.packet import SocketAddress
from lab.evidence.sighting import LOCAL, Sighting
from lab.scenario.recorder import Recorder, UnseenError


class Following:
    """Follows a connection from the packets that are seen on its server's link.

    :ivar forged: the likenesses of packets that the lab made: they tell nothing of what the server's stack has sent.
    :ivar server_on_link: the server's address, as the packets on its link have it.
    :ivar peer: the client's, likewise.
    """

    def __init__(self, recorder: Recorder, host: str, server_on_link: SocketAddress, peer: SocketAddress) -> None:
        self._recorder = recorder
        self.forged: set[tuple[object, ...]] = set()
        self._begin(host, server_on_link, peer)
        recorder.on_sighting(self._follow)

    def _begin(self, host: str, server_on_link: SocketAddress, peer: SocketAddress) -> None:
        self._host, self.server_on_link, self.peer = host, server_on_link, peer
        self._connection = Connection()

    def restart(self, host: str, server_on_link: SocketAddress, peer: SocketAddress) -> None:
        """Follow the connection of a peer at another server, from its first packet on."""
        self._begin(host, server_on_link, peer)
        for sighting in self._recorder.sightings:
            self._follow(sighting)

    def adopt(self, host: str, client: Side, server: Side) -> None:
        """Follow a connection from where it is now.

        :param host: its server's.
        """
        self._begin(host, server.endpoint, client.endpoint)
        self._connection.adopt(client, server)

    def _follow(self, sighting: Sighting) -> None:
        on_link = sighting.host == self._host and sighting.interface != LOCAL
        is_its = self.peer in (sighting.packet.source, sighting.packet.destination)  # others may have theirs there
        if on_link and is_its and sighting.packet.likeness not in self.forged:
            self._connection.see(sighting.packet)

    @property
    def quiet(self) -> bool:
        """True when both ends have acknowledged everything."""
        return self._connection.quiet

    @property
    def server(self) -> Side:
        """The server's side.

        :raises UnseenError: nothing of it was seen.
        """
        return self._side(self.server_on_link)

    @property
    def client(self) -> Side:
        """The client's side.

        :raises UnseenError: nothing of it was seen.
        """
        return self._side(self.peer)

    def _side(self, address: SocketAddress) -> Side:
        side = self._connection.side(address)
        if side is None:
            raise UnseenError(f"the capture on {self._host} has seen nothing that {address} sent in a connection")
        return side

    def first_numbers(self, client: str) -> dict[str, int]:
        """Return each side's initial sequence number, by its host."""
        sides = {self._host: self.server_on_link, client: self.peer}
        return {host: side.first for host, address in sides.items() if (side := self._connection.side(address))}
