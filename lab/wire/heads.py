# SPDX-License-Identifier: MIT
"""The beginnings of packets at every interface of a namespace, as many as a filter in the kernel lets through.

Nothing is changed by it: no interface becomes promiscuous.
"""

from __future__ import annotations

import socket
from itertools import islice
from typing import TYPE_CHECKING, Final

from lab.capture.headers import tcp_packet
from lab.evidence.packet import decode
from lab.evidence.sighting import Sighting
from lab.wire.filter import SNAP, attach
from lab.wire.sockets import PACKET_OUTGOING, PacketSocket

if TYPE_CHECKING:
    from lab.netns import Namespace

_ROOM: Final = 64 * 1024 * 1024  # bytes


class Heads(PacketSocket):
    """What passes the interfaces of one host, without the loopback.

    :param program: one of :mod:`lab.wire.filter`.
    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    def __init__(self, host: str, namespace: Namespace, program: bytes) -> None:
        super().__init__(host, namespace, socket.SOCK_DGRAM, room=_ROOM, longest=SNAP)
        self.choose(program)

    def choose(self, program: bytes) -> None:
        """Have another filter from now on; what waits already has passed the one before."""
        attach(self._socket, program)

    def read(self, most: int) -> list[Sighting]:
        """Return packets that wait, in the order in which they passed, and no more than so many; others go on waiting.

        The lab's own datagrams, and what is no IP packet, are left out.
        """
        seen: list[Sighting] = []
        for time, _length, view, (interface, _protocol, direction, *_rest) in islice(self._received(), most):
            data = bytes(view)
            packet = tcp_packet(data, 0) or decode(data)
            if packet is not None and not packet.is_barrier:
                seen.append(Sighting(time, self.host, interface, direction == PACKET_OUTGOING, packet, data))
        return seen
