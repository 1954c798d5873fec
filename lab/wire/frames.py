# SPDX-License-Identifier: MIT
"""Whole frames at every interface of a namespace, as tcpdump sees them: what a capture for others' programs needs."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from lab.wire.sockets import PACKET_OUTGOING, PacketSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Namespace

_ROOM: Final = 16 * 1024 * 1024  # bytes
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


class Frames(PacketSocket):
    """The frames at all interfaces of one host, the loopback too.

    :ivar interfaces: those that there were at first.
    :raises OSError: EPERM without CAP_NET_RAW in the namespace.
    """

    def __init__(self, host: str, namespace: Namespace) -> None:
        with namespace.entered():
            self.interfaces = tuple(name for _index, name in socket.if_nameindex())
        super().__init__(host, namespace, socket.SOCK_RAW, room=_ROOM, longest=_LONGEST)

    def read(self) -> Iterator[Frame]:
        """Yield the packets that wait, in the order in which they passed."""
        for time, length, data, (interface, _protocol, direction, kind, *_rest) in self._received(socket.MSG_TRUNC):
            outgoing, ethernet = direction == PACKET_OUTGOING, kind in _WITH_ETHERNET
            yield Frame(time, self.host, interface, outgoing, ethernet, length, bytes(data))
