# SPDX-License-Identifier: MIT
"""What proves that no packet is under way any more: a datagram that is queued behind all of them.

Each processor has one queue for what is received from veth pairs and from the loopback, whatever namespace it is in
(``softnet_data.input_pkt_queue``, filled by ``netif_rx`` and emptied in order by ``process_backlog``, net/core/dev.c).
So a datagram over the loopback of a namespace of its own, where nothing filters or routes it, comes through behind
every packet that the same processor had queued before. What such a packet led to is queued behind the datagram: each
round takes all of them one hop on.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from lab.errors import LabError
from lab.netns import Namespace, RouteSocket, bound
from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up

_ADDRESS: Final = "127.0.0.1"
_MOST_ROUNDS: Final = 10_000  # a packet passes 255 hosts at most, and so does its answer
_SO_TIMESTAMPNS: Final = 35  # include/uapi/asm-generic/socket.h


class Backlog:
    """Rounds over a loopback of its own; the thread has to stay on one processor, as the packets' senders do.

    :raises OSError: no namespace can be made.
    """

    def __init__(self) -> None:
        self._namespace = Namespace.create()
        try:
            self._routes = RouteSocket(self._namespace)
            self._routes.apply([link_up(LOOPBACK_INDEX, "the loopback of the barrier")])
            self._socket = self._namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except BaseException:
            self._namespace.close()
            raise
        self._socket.bind((_ADDRESS, 0))
        self._socket.connect(self._socket.getsockname())
        self._socket.settimeout(bound.SECONDS)

    def push(self) -> None:
        """Return when whatever was in this processor's queue has gone one hop on.

        :raises TimeoutError: it has not, for as long as :data:`lab.netns.bound.SECONDS`.
        """
        self._socket.send(b".")
        self._socket.recv(1)

    def await_timestamps(self) -> None:
        """Return when the kernel writes down when packets pass.

        It begins to a while after a socket has asked for that, in a worker of its own (net_enable_timestamp,
        net/core/dev.c). Until then a packet has the time at which it is read (__sock_recv_timestamp, net/socket.c),
        and what several captures have seen is out of order.

        :raises LabError: it does not, for as long as :data:`lab.netns.bound.SECONDS`.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        end = time.monotonic() + bound.SECONDS
        while time.monotonic() < end:
            self._socket.send(b".")
            select.select([self._socket], [], [], bound.SECONDS)
            before = time.clock_gettime_ns(time.CLOCK_REALTIME)
            _data, extra, _flags, _origin = self._socket.recvmsg(1, 64)
            seconds, nanoseconds = struct.unpack("=qq", extra[0][2])
            if seconds * 1_000_000_000 + nanoseconds < before:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 0)
                return
            os.sched_yield()  # to that worker
        raise LabError(f"the kernel took down no packet's time for {bound.SECONDS:.0f} s")

    def settle(self, came: Callable[[], bool]) -> None:
        """Return when nothing of one's own is under way any more; others may send meanwhile.

        :param came: takes in what has come since it was called last, and returns whether any of that is one's own.
        :raises LabError: the machine was kept from it, or packets go on and on.
        """
        try:
            for _ in range(_MOST_ROUNDS):
                self.push()
                if not came():
                    return
        except TimeoutError:
            raise LabError(f"the machine moved no packet for {bound.SECONDS:.0f} s") from None
        raise LabError("packets go on and on: the hosts' routes go in a circle")

    def close(self) -> None:
        """Close its namespace."""
        self._socket.close()
        self._routes.close()
        self._namespace.close()
