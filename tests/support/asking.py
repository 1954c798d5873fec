"""Questions that real sockets ask of the hosts of a running lab, and who answers."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from typing import NamedTuple

from lab.netns.rtnetlink import LOOPBACK_INDEX
from lab.netns.rtnetlink import address as netlink_address
from lab.vocabulary import Family

PORT = 8080  # the pods' own
ECHO = 7  # the pods' too; nobody but a barrier asks there
BOUND = 10  # seconds; a generous end to waits that an event ends within a millisecond
# SOL_IP and IP_RECVERR, SOL_IPV6 and IPV6_RECVERR (include/uapi/linux/in.h, in6.h)
_RECEIVE_ERRORS = {Family.IPV4: (0, 11), Family.IPV6: (41, 25)}


class Answer(NamedTuple):
    """Who answered, and as whom it saw the client."""

    server: str
    seen_as: str


class Network:
    """Questions to the hosts of a running lab, of one family. Every server listens on PORT and on ECHO."""

    def __init__(self, lab, family):
        self.lab = lab
        self.family = family
        self._listeners = {PORT: {}, ECHO: {}}
        self._datagrams = {}
        for host in lab.topology.servers:
            for port in self._listeners:
                self.listen(host.name, port)
            self._datagrams[self.socket(host.name, self.address(host.name), PORT, kind=socket.SOCK_DGRAM)] = host.name

    def address(self, host):
        """Return the first address of a host."""
        return str(self.lab.topology.addresses(host, self.family)[0])

    def socket(self, host, address, port=0, *, kind=socket.SOCK_STREAM, protocol=0):
        """Open a socket with an address of its own; it ends with the lab, a connection at once by a reset."""
        version = socket.AF_INET6 if self.family is Family.IPV6 else socket.AF_INET
        opened = self.lab.keep(self.lab.hosts[host].namespace.socket(version, kind, protocol))
        opened.settimeout(BOUND)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.bind((address, port))
        return opened

    def listen(self, host, port=PORT, *, address=None, protocol=0):
        """Have a host answer on a port of an address, its first if None."""
        listener = self.socket(host, address or self.address(host), port, protocol=protocol)
        listener.listen(64)
        self._listeners[ECHO if port == ECHO else PORT][listener] = host

    def claim(self, host, address, port=80):
        """Have a host answer for an address that none has: what gets there has slipped past the node's rules."""
        running, own = self.lab.hosts[host], ip_address(address)
        running.routes.apply([netlink_address(LOOPBACK_INDEX, ip_interface(own), f"the address {own}")])
        while not running.routes.is_local(own):
            pass
        self.listen(host, port, address=address)

    @staticmethod
    @contextmanager
    def in_order():
        """Keep this thread, and so every packet that it sends, on one processor.

        Then packets on one path can't overtake each other: each processor has one queue for all veth pairs
        (``netif_rx`` in net/core/dev.c).
        """
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def ask(self, client, address, port=80, *, source=None, protocol=0):
        """Connect, and have whoever accepts send its name back.

        :raises OSError: there is no connection, as the client's kernel says.
        """
        with self.socket(client, source or self.address(client), protocol=protocol) as asking:
            asking.connect((address, port))
            return self._answer(asking, PORT)

    def _answer(self, asking, port):
        listeners = self._listeners[port]
        ready, _, _ = select.select(listeners, [], [], BOUND)
        assert len(ready) == 1, "one connection, one server"
        name = listeners[ready[0]]
        accepted, peer = ready[0].accept()
        with accepted:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.sendall(name.encode())
            assert asking.recv(100) == name.encode()
        return Answer(name, peer[0])

    def fate(self, client, address, port=80, *, source=None, barrier=None):
        """Return what becomes of a connection at once: an :class:`Answer`, ``refused`` or ``silence``.

        Nothing is timed: the SYN is followed by a barrier, a second connection on the same path, and what has not come
        when the barrier's bytes have made their way there and back does not come for this SYN.

        :param barrier: an address and a port that lead to some server's ECHO; the first server's own if None.
        """
        source = source or self.address(client)
        with self.socket(client, source) as asking, self.socket(client, source) as second, self.in_order():
            asking.setblocking(False)
            # An ICMP error that is here before connect() has let go of the socket is kept for the next SYN, a second
            # later (tcp_v6_err in net/ipv6/tcp_ipv6.c), but with this it is reported at once.
            asking.setsockopt(*_RECEIVE_ERRORS[self.family], 1)
            code = asking.connect_ex((address, port))
            if barrier is None:
                others = (host.name for host in self.lab.topology.servers if host.name != client)
                barrier = (self.address(next(others)), ECHO)
            second.connect(barrier)
            self._answer(second, ECHO)
            arrived, _, _ = select.select(self._listeners[PORT], [], [], 0)
            _, decided, _ = select.select([], [asking], [], 0)
            if code == errno.EINPROGRESS and decided:
                code = asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                asking.settimeout(BOUND)
                return self._answer(asking, PORT)
            assert not arrived
            return {errno.EINPROGRESS: "silence", errno.ECONNREFUSED: "refused"}[code]

    def ask_by_datagram(self, client, address, port=80, *, source=None):
        """Send a datagram, and have whoever gets it send its name back.

        :raises ConnectionRefusedError: an ICMP error came back.
        """
        with self.socket(client, source or self.address(client), kind=socket.SOCK_DGRAM) as asking:
            asking.connect((address, port))
            asking.send(b"who is there?")
            ready, _, _ = select.select([asking, *self._datagrams], [], [], BOUND)
            assert len(ready) == 1
            if ready == [asking]:
                asking.recv(100)
            received, peer = ready[0].recvfrom(100)
            assert received == b"who is there?"
            name = self._datagrams[ready[0]]
            ready[0].sendto(name.encode(), peer)
            assert asking.recv(100) == name.encode()
            return Answer(name, peer[0])
