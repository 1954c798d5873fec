# SPDX-License-Identifier: MIT
"""A real TCP connection between two hosts: a client that asks, and a server that sends a known stream.

The bytes of the stream are known by their position, so both ends can prove that they got what was sent.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import struct
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Final, Self

from lab.errors import LabError, raise_if_of_machine
from lab.evidence.packet import SocketAddress
from lab.netns import Namespace, bound
from lab.netns.filters import JUMP_EQUAL, LOAD_HALF, NETWORK, RETURN, attach

REQUEST: Final = b"GET the stream\n"
FAREWELL: Final = b"thank you\n"
#: In seconds. A handshake takes 0.1 ms, and after this long a barrier tells whether it is over.
A_MOMENT: Final = 0.02
TCP_REPAIR: Final = 19  # include/uapi/linux/tcp.h; Python has no name for it
_ATTACH_REUSEPORT_CBPF: Final = 51  # include/uapi/asm-generic/socket.h
_ESTABLISHED, _CLOSED = 1, 7  # TCP_ESTABLISHED and TCP_CLOSE, include/net/tcp_states.h


@cache
def _pattern() -> bytes:
    return random.Random("lab").randbytes(1 << 16)


def stream(start: int, length: int) -> bytes:
    """Return ``length`` bytes of the stream from position ``start``; it repeats every 64 KiB."""
    pattern = _pattern()
    start %= len(pattern)
    return (pattern[start:] + pattern * (length // len(pattern) + 1))[:length]


class StalledError(LabError):
    """A socket neither moved on nor failed within the bound."""


class TcpEnd:
    """One end of a connection: what it sent and received, and the error that ended it.

    :ivar soft_error: one that ended nothing, such as an ICMP error's (RFC 1122, 4.2.3.9): the kernel tells both alike.
    """

    def __init__(self, host: str, sock: socket.socket) -> None:
        # It ends with a reset, by SIGKILL too: an orphan with undelivered data would hold its namespace for as long
        # as TCP's retransmission timer has grown (tcp_orphan_retries only counts).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.host = host
        self.socket = sock
        self.sent = 0
        self.received = bytearray()
        self.error: str | None = None
        self.soft_error: str | None = None

    @property
    def own_address(self) -> SocketAddress:
        """The address of this end, as its own host knows it."""
        return SocketAddress(*self.socket.getsockname()[:2])

    @property
    def peer_address(self) -> SocketAddress:
        """The address of the other end, as this end's host knows it."""
        return SocketAddress(*self.socket.getpeername()[:2])

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; an error of the socket is kept, not raised."""
        await self._bounded(self._send(data))

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)
        self.sent += len(data)

    async def receive(self, length: int) -> None:
        """Receive until ``length`` bytes have come in all; an error or an early end is kept, not raised."""
        await self._bounded(self._receive(length))

    async def _receive(self, length: int) -> None:
        loop = asyncio.get_running_loop()
        while len(self.received) < length and self.error is None:
            self.acknowledge()
            data = await loop.sock_recv(self.socket, 65536)
            if not data:
                self.error = "EOF"
            self.received += data
        self.acknowledge()

    def acknowledge(self) -> None:
        """Send the acknowledgement that waits for data to ride on, if one does.

        Otherwise it would still be under way at the next step, sent by a timer, from whichever processor that is on.
        """
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def _bounded(self, action: asyncio.Future[None] | object) -> None:
        try:
            async with asyncio.timeout(bound.SECONDS):
                await action  # type: ignore[misc]
        except TimeoutError:
            raise StalledError(f"{self.host}: the connection stood still for {bound.SECONDS:.0f} s") from None
        except OSError as failure:
            raise_if_of_machine(failure)
            self.error = errno.errorcode.get(failure.errno or 0, str(failure))

    def pending_error(self) -> str | None:
        """Return the error that ended the socket, without sending or receiving anything.

        What an ICMP error has it note in passing (the kernel's sk_err_soft) ends nothing.
        """
        if self.socket.fileno() < 0:
            return self.error
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code and _state(self.socket) == _CLOSED:
            self.error = errno.errorcode.get(code, str(code))
        elif code:
            self.soft_error = errno.errorcode.get(code, str(code))
        return self.error

    def close(self) -> None:
        """Close at once with a reset."""
        self.socket.close()


def address_family(address: str) -> int:
    """Return the socket family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _bound_socket(
    namespace: Namespace, kind: int, own: SocketAddress, also: int = socket.SO_REUSEADDR
) -> socket.socket:
    sock = namespace.socket(address_family(own.address), kind)
    try:
        for option in (socket.SO_REUSEADDR, also):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind((own.address, own.port))
    except BaseException:
        sock.close()
        raise
    return sock


def listen(namespace: Namespace, own: SocketAddress) -> socket.socket:
    """Open a listening socket in a namespace."""
    sock = _bound_socket(namespace, socket.SOCK_STREAM, own)
    sock.listen()
    return sock


def listen_first(namespace: Namespace, own: SocketAddress) -> socket.socket:
    """Open a listening socket at an address where another may listen for a client of its own besides."""
    sock = _bound_socket(namespace, socket.SOCK_STREAM, own, socket.SO_REUSEPORT)
    sock.listen()
    return sock


def listen_beside(namespace: Namespace, own: SocketAddress, port: int) -> socket.socket:
    """Open a listening socket for clients that come from a port, at an address where one listens for everybody.

    Which of the two has a SYN is for a filter to say (socket(7), SO_ATTACH_REUSEPORT_CBPF): they are numbered in the
    order in which they came, and the port is at the beginning of what follows the IP header.

    :raises OSError: EADDRINUSE where what listens there is no socket of :func:`listen_first`.
    """
    sock = _bound_socket(namespace, socket.SOCK_STREAM, own, socket.SO_REUSEPORT)
    try:
        sock.listen()
        header = 40 if ":" in own.address else 20
        program = ((LOAD_HALF, 0, 0, NETWORK + header), (JUMP_EQUAL, 0, 1, port), (RETURN, 0, 0, 1), (RETURN, 0, 0, 0))
        attach(sock, _ATTACH_REUSEPORT_CBPF, program)
    except BaseException:
        sock.close()
        raise
    return sock


def datagram_socket(namespace: Namespace, own: SocketAddress, other: SocketAddress | None = None) -> socket.socket:
    """Open a UDP socket in a namespace, between two addresses or for whoever sends to its own."""
    sock = _bound_socket(namespace, socket.SOCK_DGRAM, own)
    if other is not None:
        sock.connect((other.address, other.port))
    return sock


class Attempt:
    """An attempt to connect from a client's own address to ``target``, accepted at whichever server it comes to.

    It goes on for as long as its block lasts.

    :param listeners: the servers' hosts and listening sockets.
    """

    def __init__(
        self,
        host: str,
        namespace: Namespace,
        own: SocketAddress,
        listeners: Sequence[tuple[str, socket.socket]],
        target: SocketAddress,
    ) -> None:
        self._end = TcpEnd(host, _bound_socket(namespace, socket.SOCK_STREAM, own))
        self._target = target
        self._handed_over = False
        self._task = asyncio.ensure_future(self._connect(listeners))

    async def _connect(self, listeners: Sequence[tuple[str, socket.socket]]) -> TcpEnd:
        await asyncio.get_running_loop().sock_connect(self._end.socket, (self._target.address, self._target.port))
        return await _accept(listeners)

    async def over_within(self, seconds: float) -> bool:
        """Report whether it came to an end, good or bad, within so many seconds."""
        done, _pending = await asyncio.wait({self._task}, timeout=seconds)
        return bool(done)

    @property
    def is_connected(self) -> bool:
        """Whether the client's kernel takes it for a connection."""
        return _state(self._end.socket) == _ESTABLISHED

    @property
    def own_address(self) -> SocketAddress:
        """The client's own address."""
        return self._end.own_address

    def client_end(self) -> TcpEnd:
        """Return the client's end alone; from then on it is the caller's to close."""
        self._handed_over = True
        return self._end

    async def ends(self) -> tuple[TcpEnd, TcpEnd]:
        """Return the client's end and the server's; from then on they are the caller's to close.

        :raises OSError: ECONNREFUSED and its like, as the client's kernel says.
        :raises StalledError: it neither succeeded nor failed within the bound.
        """
        try:
            server = await asyncio.wait_for(asyncio.shield(self._task), bound.SECONDS)
        except TimeoutError:
            raise StalledError(
                f"{self._end.host}: no connection to {self._target} within {bound.SECONDS:.0f} s"
            ) from None
        self._handed_over = True
        return self._end, server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Until the task has ended the loop watches descriptors, which somebody else may get when they are closed.
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # whoever wanted to know it has asked
        if not self._handed_over:
            self._end.close()


def _state(sock: socket.socket) -> int:
    """Return a socket's TCP state (tcp_info's first field, linux/tcp.h)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


async def _accept(listeners: Sequence[tuple[str, socket.socket]]) -> TcpEnd:
    loop = asyncio.get_running_loop()
    accepting = {loop.create_task(loop.sock_accept(listener)): host for host, listener in listeners}
    try:
        done, _pending = await asyncio.wait(accepting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in accepting:
            task.cancel()
        await asyncio.wait(accepting)  # or the loop goes on watching sockets that are closed next
    [first] = done
    return TcpEnd(accepting[first], first.result()[0])
