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
from typing import Final

from lab.errors import LabError
from lab.netns import Namespace
from lab.wire.packet import SocketAddress

REQUEST: Final = b"GET the stream\n"
FAREWELL: Final = b"thank you\n"
_BOUND: Final = 10.0  # seconds; a generous end to waits that an event ends within a millisecond


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
    """One end of a connection: what it sent and received, and the error that ended it."""

    def __init__(self, host: str, sock: socket.socket) -> None:
        # It ends with a reset, by SIGKILL too: an orphan with undelivered data would hold its namespace for as long
        # as TCP's retransmission timer has grown (tcp_orphan_retries only counts).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.host = host
        self.socket = sock
        self.sent = 0
        self.received = bytearray()
        self.error: str | None = None

    @property
    def own_address(self) -> SocketAddress:
        """The address of this end, as its own host knows it."""
        return SocketAddress(*self.socket.getsockname()[:2])

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
            # An acknowledgement that waits for data to ride on would still be under way at the next step.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            data = await loop.sock_recv(self.socket, 65536)
            if not data:
                self.error = "EOF"
            self.received += data

    async def _bounded(self, action: asyncio.Future[None] | object) -> None:
        try:
            async with asyncio.timeout(_BOUND):
                await action  # type: ignore[misc]
        except TimeoutError:
            raise StalledError(f"{self.host}: the connection stood still for {_BOUND:.0f} s") from None
        except OSError as failure:
            self.error = errno.errorcode.get(failure.errno or 0, str(failure))

    def pending_error(self) -> str | None:
        """Take the error that the kernel holds for the socket, without sending or receiving anything."""
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.error = errno.errorcode.get(code, str(code))
        return self.error

    def close(self) -> None:
        """Close at once with a reset."""
        self.socket.close()


def address_family(address: str) -> int:
    """Return the socket family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _bound_socket(namespace: Namespace, kind: int, own: SocketAddress) -> socket.socket:
    sock = namespace.socket(address_family(own.address), kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


def datagram_socket(namespace: Namespace, own: SocketAddress, other: SocketAddress) -> socket.socket:
    """Open a UDP socket between two addresses in a namespace."""
    sock = _bound_socket(namespace, socket.SOCK_DGRAM, own)
    sock.connect((other.address, other.port))
    return sock


async def connect(
    client: tuple[str, Namespace, SocketAddress],
    listeners: Sequence[tuple[str, socket.socket]],
    target: SocketAddress,
) -> tuple[TcpEnd, TcpEnd]:
    """Connect from a client's own address to ``target``, and accept it at whichever server it comes to.

    :param listeners: the servers' hosts and listening sockets.
    :returns: the client's end and the server's.
    :raises OSError: ECONNREFUSED and its like, as the client's kernel says.
    :raises StalledError: no answer within the bound.
    """
    loop = asyncio.get_running_loop()
    name, namespace, own = client
    end = TcpEnd(name, _bound_socket(namespace, socket.SOCK_STREAM, own))
    try:
        async with asyncio.timeout(_BOUND):
            await loop.sock_connect(end.socket, (target.address, target.port))
            server = await _accept(listeners)
    except TimeoutError:
        end.close()
        raise StalledError(f"{name}: no connection to {target} within {_BOUND:.0f} s") from None
    except BaseException:
        end.close()
        raise
    return end, server


async def _accept(listeners: Sequence[tuple[str, socket.socket]]) -> TcpEnd:
    loop = asyncio.get_running_loop()
    accepting = {loop.create_task(loop.sock_accept(listener)): host for host, listener in listeners}
    try:
        done, _pending = await asyncio.wait(accepting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in accepting:
            task.cancel()
    [first] = done
    return TcpEnd(accepting[first], first.result()[0])
