# SPDX-License-Identifier: MIT
"""The packets of late, by which a translation is found where no SYN was seen."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from lab.capture.connection import Connection
from lab.capture.lane import Kept
from lab.evidence.packet import Packet

_RECENT: Final = 4096


class Remembered:
    """Which connection each of the last packets was of. They are looked at when somebody asks."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Connection, Packet] | Kept] = deque(maxlen=_RECENT)
        self._known: OrderedDict[tuple[object, ...], Connection] = OrderedDict()
        self.add_plain = self._waiting.append

    def add(self, packet: Packet, connection: Connection) -> None:
        """Remember a packet."""
        self._waiting.append((connection, packet))

    def get(self, packet: Packet) -> Connection | None:
        """Return the connection that this packet was of, as it was before or behind its translation."""
        while self._waiting:
            one = self._waiting.popleft()
            connection, seen = (one.lane.connection, one.packet) if isinstance(one, Kept) else one
            assert isinstance(connection, Connection)  # no ordinary one: of these the SYN was seen
            self._known[_likeness(seen)] = connection
            if len(self._known) > _RECENT:
                self._known.popitem(last=False)
        return self._known.get(_likeness(packet))


def _likeness(packet: Packet) -> tuple[object, ...]:
    tcp = packet.tcp
    assert tcp is not None
    numbers = (tcp.sequence, tcp.acknowledgement, tcp.flags, tcp.window, tcp.timestamps)
    return (*numbers, packet.payload_length, packet.identification)
