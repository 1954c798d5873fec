# SPDX-License-Identifier: MIT
"""Filling one namespace's table to the limit, with entries of flows that nobody has.

The limit, ``net.netfilter.nf_conntrack_max``, is one for the whole machine, and each namespace counts for itself. So
the limit is read and never written, and nobody else's table is any fuller.

The hash that entries are in is the machine's, and what walks it (a dump, the end of any namespace) walks all of it.
The kernel clears a namespace away when it has time, so the entries are deleted before: otherwise a busy machine gathers
them, and each makes the clearing away of every other namespace slower.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from lab.conntrack.netlink import ConntrackTable, creation
from lab.errors import LabError, MissingError
from lab.evidence.packet import UDP, SocketAddress
from lab.netns import Namespace, bound, nfnetlink

_LIMIT: Final = "net/netfilter/nf_conntrack_max"
_COUNT: Final = "net/netfilter/nf_conntrack_count"
_EVENTS: Final = "net/netfilter/nf_conntrack_events"

_LARGEST: Final = 4_000_000  # entries; an entry takes 256 bytes (Linux 6.18), so this is a GiB
_BATCH: Final = 256  # requests by one send(2)
_BUFFER: Final = 1024 * 1024
_TIMEOUT: Final = 3600  # seconds; no trial takes that long
_DESTINATION: Final = SocketAddress("198.19.0.1", 9)  # RFC 2544's network and RFC 863's port: nobody's
_PORTS: Final = 60_000  # source ports of one address
_NUMBER: Final = struct.Struct("!H")


class Filler:
    """Fills the table of one namespace, as often as there is room again; closing it empties the table.

    :param assured: with entries that nothing pushes out; otherwise with such as an unanswered datagram leaves.
    :raises MissingError: the machine has no limit, or one that would take a GiB to reach.
    """

    def __init__(self, namespace: Namespace, *, assured: bool) -> None:
        self._namespace = namespace
        self._made = 0
        self._limit = int(namespace.sysctl(_LIMIT))
        if not 0 < self._limit <= _LARGEST:
            raise MissingError(
                f"conntrack's limit is {self._limit:,} entries here, and the lab fills up to {_LARGEST:,}",
                "boot a machine with another net.netfilter.nf_conntrack_max",
            )
        self._request = _request(SocketAddress("198.18.0.0", 0), assured=assured)
        # Where the source stands in it: in both tuples, the last two bytes of the address and the port.
        marked = _request(SocketAddress("198.18.255.255", 0xFFFF), assured=assured)
        places = [index for index, byte in enumerate(marked) if byte != self._request[index]][::2]
        self._addresses, self._ports = places[::2], places[1::2]
        self._table = ConntrackTable(namespace)

    def fill(self) -> None:
        """Fill the table to the limit (2 us an entry).

        Meanwhile the kernel may take entries away that are not assured: its collector does where a table is fuller
        than 95 in a hundred (net/netfilter/nf_conntrack_core.c, gc_worker), a slice of the hash at a time. Those are
        made again.

        :raises LabError: the kernel did not take so many.
        """
        before = self._namespace.sysctl(_EVENTS)
        # An entry that is made without is one whose making and end nobody is told of: listeners would drown.
        self._namespace.set_sysctls({_EVENTS: 0})
        try:
            with nfnetlink.open_socket(self._namespace) as channel:
                channel.setblocking(True)
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                self._make(channel)
                end = time.monotonic() + bound.SECONDS
                while (count := self._count()) < self._limit:
                    if time.monotonic() > end:
                        raise LabError(f"conntrack took {count:,} entries, and its limit is {self._limit:,}")
                    self._make(channel)
        finally:
            self._namespace.set_sysctls({_EVENTS: before})

    def close(self) -> None:
        """Delete all entries of the namespace; return when they are gone (0.2 s on an idle machine)."""
        self._table.flush()
        self._table.close()

    def _make(self, channel: socket.socket) -> None:
        left = self._limit - self._count()
        while left > 0:
            size = min(left, _BATCH)
            channel.send(self._requests(size))
            left -= size

    def _count(self) -> int:
        return int(self._namespace.sysctl(_COUNT))

    def _requests(self, count: int) -> bytearray:
        """Write as many requests, each with a source that none had before."""
        requests = bytearray(self._request * count)
        for start in range(0, len(requests), len(self._request)):
            address, port = divmod(self._made, _PORTS)
            for place in self._addresses:
                _NUMBER.pack_into(requests, start + place, address)
            for place in self._ports:
                _NUMBER.pack_into(requests, start + place, port + 1)
            self._made += 1
        return requests


def _request(source: SocketAddress, *, assured: bool) -> bytes:
    return creation(UDP, source, _DESTINATION, assured=assured, timeout=_TIMEOUT, flags=0)
