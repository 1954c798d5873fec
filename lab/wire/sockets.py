# SPDX-License-Identifier: MIT
"""Packets at all interfaces of a namespace with the kernel's times: what the sockets that see them have in common."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from lab.netns.room import make_room

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Namespace

PACKET_OTHERHOST, PACKET_OUTGOING = 3, 4  # include/uapi/linux/if_packet.h
_ETH_P_ALL: Final = 0x0003  # include/uapi/linux/if_ether.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS: Final = 35  # include/uapi/asm-generic/socket.h; Python has no name for it


class PacketSocket:
    """An AF_PACKET socket that sees all interfaces of one host.

    :param kind: SOCK_RAW for frames, SOCK_DGRAM for what is in them.
    :param room: bytes of packets that wait.
    :param longest: bytes of a packet that are read.
    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    def __init__(self, host: str, namespace: Namespace, kind: int, *, room: int, longest: int) -> None:
        self.host = host
        self._socket = namespace.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        make_room(self._socket, room)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._packet = bytearray(longest)

    def fileno(self) -> int:
        """Return the descriptor, readable when packets wait."""
        return self._socket.fileno()

    def _received(self, flags: int = 0) -> Iterator[tuple[int, int, memoryview, tuple[Any, ...]]]:
        """Yield the packets that wait, but for those that came before timestamps were asked for.

        Each as its time in nanoseconds, its length, its bytes until the next one is read, and where it was seen, as
        ``recvmsg`` tells it of AF_PACKET: interface, protocol, direction, kind of hardware.
        """
        view = memoryview(self._packet)
        while True:
            try:
                length, extra, _flags, origin = self._socket.recvmsg_into([self._packet], 64, flags)
            except BlockingIOError:
                return
            if extra:
                seconds, nanoseconds = struct.unpack("=qq", extra[0][2])
                yield seconds * 1_000_000_000 + nanoseconds, length, view[:length], origin

    def lost(self) -> int:
        """Return how many packets the kernel could not hand over since the last call."""
        _seen, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def close(self) -> None:
        """Close the socket; this waits for the kernel's next grace period."""
        self._socket.close()
