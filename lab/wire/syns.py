# SPDX-License-Identifier: MIT
"""Seeing the SYNs and SYN,ACKs of a namespace alone, whatever else passes its interfaces."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from lab.evidence.packet import SYN, decode
from lab.evidence.sighting import Sighting
from lab.netns.filters import JUMP_EQUAL, JUMP_SET, LOAD_BYTE, NETWORK, RETURN, SHIFT_RIGHT, SO_ATTACH_FILTER, attach
from lab.wire.sockets import PACKET_OUTGOING, PacketSocket

if TYPE_CHECKING:
    from lab.netns import Namespace

_ROOM: Final = 1024 * 1024  # bytes
_LONGEST: Final = 2048  # bytes; those with data are longer, and their headers are whole
# An IPv4 header with options, or IPv6 with extension headers, no stack of a lab sends before TCP.
_PROGRAM: Final = (
    (LOAD_BYTE, 0, 0, NETWORK),
    (SHIFT_RIGHT, 0, 0, 4),
    (JUMP_EQUAL, 0, 4, 4),  # else to IPv6
    (LOAD_BYTE, 0, 0, NETWORK + 9),
    (JUMP_EQUAL, 0, 8, socket.IPPROTO_TCP),  # else to the end
    (LOAD_BYTE, 0, 0, NETWORK + 20 + 13),
    (JUMP_SET, 5, 6, SYN),
    (JUMP_EQUAL, 0, 5, 6),
    (LOAD_BYTE, 0, 0, NETWORK + 6),
    (JUMP_EQUAL, 0, 3, socket.IPPROTO_TCP),
    (LOAD_BYTE, 0, 0, NETWORK + 40 + 13),
    (JUMP_SET, 0, 1, SYN),
    (RETURN, 0, 0, 0xFFFF),
    (RETURN, 0, 0, 0),
)


class Syns(PacketSocket):
    """The SYNs and SYN,ACKs at all interfaces of one host.

    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    def __init__(self, host: str, namespace: Namespace) -> None:
        super().__init__(host, namespace, socket.SOCK_DGRAM, room=_ROOM, longest=_LONGEST)
        attach(self._socket, SO_ATTACH_FILTER, _PROGRAM)
        self.read()  # what came before the filter

    def read(self) -> list[Sighting]:
        """Return those that wait, in the order in which they passed."""
        return [
            Sighting(time, self.host, interface, direction == PACKET_OUTGOING, packet)
            for time, _length, data, (interface, _protocol, direction, *_rest) in self._received()
            if (packet := decode(data)) is not None and packet.tcp is not None and packet.tcp.flags & SYN
        ]
