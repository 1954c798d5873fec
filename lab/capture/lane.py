# SPDX-License-Identifier: MIT
"""One direction of a connection as long as nothing happens there: what a plain segment is held against."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from lab.capture.headers import tcp_packet
from lab.capture.quick import QuickSide
from lab.evidence.packet import Packet

if TYPE_CHECKING:
    from lab.capture.connection import Connection
    from lab.capture.ordinary import Ordinary

RECENT: Final = 64  # packets of a connection whose copies are looked for

#: Where packets pass by in one direction: a file, an interface of it, and the way where that is told.
Stream: TypeAlias = tuple[str, str, bool | None]


class Lane:
    """One direction of a connection that is seen at one point alone.

    :ivar ordinary: its connection, where that is one of which there is nothing to tell so far.
    :ivar begins: whether the connection's SYN was seen.
    :ivar kept: plain segments of the connection that it was not told yet.
    :ivar key: the addresses and ports as packets have them.
    :ivar home: where it stands by this key as long as plain segments may be taken.
    :ivar at: where in a frame the IP header begins.
    :ivar sender: what conntrack knows of the side that sends here.
    :ivar acknowledged: the highest number that this side has acknowledged.
    :ivar follows: nothing that it sent is missing, so that its receiver waits for what conntrack saw last.
    :ivar count: of plain segments that the connection was not told yet; more than are kept.
    """

    __slots__ = (
        *("acknowledged", "at", "begins", "connection", "count", "follows", "from_client", "home", "kept", "key"),
        *("ordinary", "receiver", "sender", "stream"),
    )

    def __init__(
        self,
        connection: Connection | Ordinary,
        stream: Stream,
        key: bytes,
        home: dict[bytes, Lane],
        at: int,
        *,
        from_client: bool,
    ) -> None:
        self.connection, self.stream, self.from_client = connection, stream, from_client
        self.begins, self.kept = False, connection.kept
        self.ordinary: Ordinary | None = None
        self.key, self.home, self.at = key, home, at
        self.count = self.acknowledged = 0
        self.follows = False
        self.sender = self.receiver = QuickSide(0, 0, 0, 0)

    def close(self) -> None:
        """Take no more plain segments."""
        if self.home.get(self.key) is self:
            del self.home[self.key]


class Kept(NamedTuple):
    """A plain segment that its connection was not told yet: its headers as they were captured."""

    lane: Lane
    headers: bytes
    number: int
    time: int

    @property
    def packet(self) -> Packet:
        """What its headers say."""
        packet = tcp_packet(self.headers, self.lane.at)
        assert packet is not None
        return packet


#: Makes one without a call in Python: this is done once a packet.
kept: Final[Callable[[tuple[Lane, bytes, int, int]], Kept]] = partial(tuple.__new__, Kept)
