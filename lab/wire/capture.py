# SPDX-License-Identifier: MIT
"""Seeing every packet at every interface of a namespace, with the kernel's own timestamps."""

from __future__ import annotations

import socket
import struct
from typing import Final

from lab.evidence.packet import decode
from lab.evidence.sighting import Sighting
from lab.netns import Namespace

_ETH_P_ALL: Final = 0x0003  # include/uapi/linux/if_ether.h
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4  # include/uapi/linux/if_packet.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS: Final = 35  # include/uapi/asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 8 * 1024 * 1024  # bytes; a trial's packets fit many times over
_LONGEST: Final = 65536 + 40


class Capture:
    """An AF_PACKET socket that sees all interfaces of one host.

    :param loopback: whether it sees the loopback as well.
    :param others: whether it sees what is for others' hardware addresses, such as what a bridge floods.
    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    slow_to_close = True

    def __init__(self, host: str, namespace: Namespace, *, loopback: bool = False, others: bool = True) -> None:
        self.host = host
        self._loopback, self._others = loopback, others
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # only the machine's own root may pass net.core.rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._room = bytearray(_LONGEST)

    def fileno(self) -> int:
        """Return the descriptor, readable when packets wait."""
        return self._socket.fileno()

    def read(self) -> list[Sighting]:
        """Return the packets that wait, in the order in which they passed."""
        seen: list[Sighting] = []
        view = memoryview(self._room)
        while True:
            try:
                length, extra, _flags, origin = self._socket.recvmsg_into([self._room], 64)
            except BlockingIOError:
                return seen
            interface, _protocol, direction = origin[:3]
            packet = decode(view[:length])
            if packet is None or not extra:  # it came before timestamps were asked for
                continue
            if (interface == "lo" and not self._loopback) or (direction == _PACKET_OTHERHOST and not self._others):
                continue
            seconds, nanoseconds = struct.unpack("=qq", extra[0][2])
            time = seconds * 1_000_000_000 + nanoseconds
            outgoing = direction == _PACKET_OUTGOING
            seen.append(Sighting(time, self.host, interface, outgoing, packet, bytes(view[:length])))

    def lost(self) -> int:
        """Return how many packets the kernel could not hand over since the last call."""
        _seen, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def close(self) -> None:
        """Close the socket; this waits for the kernel's next grace period."""
        self._socket.close()
