# SPDX-License-Identifier: MIT
"""Seeing every packet at every interface of a namespace, with the kernel's own timestamps."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from typing import Final

from lab.evidence.packet import Ends, decode
from lab.evidence.sighting import Sighting
from lab.netns import Namespace
from lab.netns.filters import SO_ATTACH_FILTER, attach
from lab.wire.beside import MOST, leaving_out
from lab.wire.sockets import PACKET_OTHERHOST, PACKET_OUTGOING, PacketSocket

_ROOM: Final = 8 * 1024 * 1024  # bytes; a trial's packets fit many times over
_LONGEST: Final = 65536 + 40


class Capture(PacketSocket):
    """What is sighted at all interfaces of one host.

    :param loopback: whether it sees the loopback as well.
    :param others: whether it sees what is for others' hardware addresses, such as what a bridge floods.
    :ivar astray: of what was read last, that which was for such where it does not: it came to a link's end alone.
    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    slow_to_close = True

    def __init__(self, host: str, namespace: Namespace, *, loopback: bool = False, others: bool = True) -> None:
        super().__init__(host, namespace, socket.SOCK_DGRAM, room=_ROOM, longest=_LONGEST)
        self._loopback, self._others = loopback, others
        self.astray: list[Sighting] = []

    def leave_out(self, most: int, connections: Collection[Ends]) -> None:
        """Have the kernel leave out longer packets, and those of some TCP connections, such as somebody's downloads.

        Begin anew with that: what was seen or lost before is no matter any more.

        :param most: and ``connections``: see :func:`lab.wire.beside.leaving_out`.
        """
        room = MOST
        while True:
            try:
                attach(self._socket, SO_ATTACH_FILTER, leaving_out(most, connections, room))
                break
            except OSError as error:  # net.core.optmem_max may be small: 20,480 bytes on 5.10
                if error.errno != errno.ENOMEM or not room:
                    raise
            room //= 2
        for _packet in self._received():
            pass
        self.lost()

    def read(self) -> list[Sighting]:
        """Return the packets that wait, in the order in which they passed."""
        seen: list[Sighting] = []
        self.astray = []
        for time, _length, data, (interface, _protocol, direction, *_rest) in self._received():
            if (interface == "lo" and not self._loopback) or (packet := decode(data)) is None:
                continue
            found = seen if direction != PACKET_OTHERHOST or self._others else self.astray
            found.append(Sighting(time, self.host, interface, direction == PACKET_OUTGOING, packet, bytes(data)))
        return seen
