# SPDX-License-Identifier: MIT
"""Whole frames at every interface of a namespace, as tcpdump sees them: what a capture for others' programs needs."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Namespace

_ETH_P_ALL: Final = 0x0003  # include/uapi/linux/if_ether.h
_PACKET_OUTGOING: Final = 4  # include/uapi/linux/if_packet.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS: Final = 35  # include/uapi/asm-generic/socket.h
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 16 * 1024 * 1024  # bytes
_LONGEST: Final = 256 * 1024  # bytes: the longest that the tcpdump of today takes
_WITH_ETHERNET: Final = {1, 772}  # ARPHRD_ETHER, ARPHRD_LOOPBACK: include/uapi/linux/if_arp.h


class Frame(NamedTuple):
    """A packet as it passed an interface.

    :param time: nanoseconds since the epoch, by the kernel.
    :param length: bytes that it had, where ``data`` is its beginning alone.
    :param ethernet: whether it begins with an Ethernet header; else with that of IP.
    """

    time: int
    host: str
    interface: str
    outgoing: bool
    ethernet: bool
    length: int
    data: bytes


class Frames:
    """An AF_PACKET socket that sees all interfaces of one host, the loopback too.

    :ivar interfaces: those that there were at first.
    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    def __init__(self, host: str, namespace: Namespace) -> None:
        self.host = host
        with namespace.entered():
            self.interfaces = tuple(name for _index, name in socket.if_nameindex())
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # only the machine's own root may pass net.core.rmem_max
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._room = bytearray(_LONGEST)

    def fileno(self) -> int:
        """Return the descriptor, readable when packets wait."""
        return self._socket.fileno()

    def read(self) -> Iterator[Frame]:
        """Yield the packets that wait, in the order in which they passed."""
        view = memoryview(self._room)
        while True:
            try:
                length, extra, _flags, origin = self._socket.recvmsg_into([self._room], 64, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            if not extra:  # it came before timestamps were asked for
                continue
            interface, _protocol, direction, kind = origin[:4]
            seconds, nanoseconds = struct.unpack("=qq", extra[0][2])
            time = seconds * 1_000_000_000 + nanoseconds
            outgoing, ethernet = direction == _PACKET_OUTGOING, kind in _WITH_ETHERNET
            yield Frame(time, self.host, interface, outgoing, ethernet, length, bytes(view[:length]))

    def lost(self) -> int:
        """Return how many packets the kernel could not hand over since the last call."""
        _seen, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def close(self) -> None:
        """Close the socket; this waits for the kernel's next grace period."""
        self._socket.close()
