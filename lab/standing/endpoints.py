"""The servers of a lab that stays: every endpoint of its Services answers.

TCP ports speak enough HTTP for ``curl`` (RFC 9112), and say which pod answered whom. UDP ports send back what
they get.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

from lab.traffic.stream import address_family, listen
from lab.wire.packet import SocketAddress
from lab.words import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fabric import Lab
    from lab.netns import Namespace
    from lab.topology.model import Topology

_END_OF_HEAD: Final = b"\r\n\r\n"


def endpoints(topology: Topology) -> Iterator[tuple[str, str, SocketAddress]]:
    """List every endpoint, ready or not, each once: its host, protocol (``TCP``, ``UDP``) and address."""
    seen = set()
    for piece in topology.endpoint_slices:
        for address in (address for endpoint in piece.endpoints for address in endpoint.addresses):
            host = topology.host_of(address)
            for port in piece.ports if host is not None else ():
                if port.port is not None and (address, port.protocol, port.port) not in seen:
                    seen.add((address, port.protocol, port.port))
                    assert host is not None
                    yield host.name, port.protocol, SocketAddress(address, port.port)


class Servers:
    """The servers of all endpoints, for the length of a block in a running event loop."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._listeners: list[asyncio.Server] = []
        self._echoes: list[asyncio.DatagramTransport] = []
        self._connections: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        """Open all sockets: from here on every endpoint answers."""
        for host, protocol, own in endpoints(self._lab.topology):
            if Family.of(ip_address(own.address)) not in self._lab.families:
                continue
            namespace = self._lab.hosts[host].namespace
            if protocol == "TCP":
                self._listeners.append(await self._listen(host, namespace, own))
            elif protocol == "UDP":
                self._echoes.append(await _echo(namespace, own))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up all sockets at once: an orphaned connection would hold its namespace."""
        for listener in self._listeners:
            listener.close()
        for echo in self._echoes:
            echo.abort()
        for connection in self._connections:
            sock = connection.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.transport.abort()

    async def _listen(self, host: str, namespace: Namespace, own: SocketAddress) -> asyncio.Server:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections.add(writer)
            try:
                await _answer(reader, writer, f"{host} {own}")
            except (ConnectionError, asyncio.LimitOverrunError):
                writer.transport.abort()
            finally:
                self._connections.discard(writer)
                writer.close()

        return await asyncio.start_server(answer, sock=listen(namespace, own))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """Answer requests until the client has no more, or sends one with a body (which nobody reads)."""
    client = SocketAddress(*writer.get_extra_info("peername")[:2])
    text = f"{name} answers {client}\n".encode()
    method = b"GET"
    while method == b"GET":
        try:
            method = (await reader.readuntil(_END_OF_HEAD)).partition(b" ")[0]
        except asyncio.IncompleteReadError:
            return
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        closing = "" if method == b"GET" else "Connection: close\r\n"
        writer.write(f"{head}{closing}\r\n".encode() + (b"" if method == b"HEAD" else text))
        await writer.drain()


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)


async def _echo(namespace: Namespace, own: SocketAddress) -> asyncio.DatagramTransport:
    sock = namespace.socket(address_family(own.address), socket.SOCK_DGRAM)
    try:
        sock.bind((own.address, own.port))
        transport, _protocol = await asyncio.get_running_loop().create_datagram_endpoint(_Echo, sock=sock)
    except BaseException:
        sock.close()
        raise
    return transport
