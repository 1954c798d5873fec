# SPDX-License-Identifier: MIT
"""The servers of a lab that stays: every endpoint of its Services answers, and every pod that may become one.

TCP ports speak enough HTTP for ``curl`` (RFC 9112), and say which pod answered whom. UDP ports send back what
they get.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

from lab.errors import InputError
from lab.evidence.packet import SocketAddress
from lab.fabric.endpoints import endpoint_ports
from lab.traffic.tcp import address_family, listen_first
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fabric.lab import Lab
    from lab.netns import Namespace
    from lab.topology.model import Topology

_END_OF_HEAD: Final = b"\r\n\r\n"


def servers(topology: Topology) -> Iterator[tuple[str, str, SocketAddress]]:
    """List what answers, each once: host, protocol (``TCP``, ``UDP``) and address.

    Those are the endpoints, ready or not, and the other pods at the same ports: any may become an endpoint.
    """
    seen = set()
    for address, protocol, port in (*_endpoints(topology), *_others(topology)):
        host = topology.host_of(address)
        if host is not None and (address, protocol, port) not in seen:
            seen.add((address, protocol, port))
            yield host.name, protocol, SocketAddress(address, port)


def _endpoints(topology: Topology) -> Iterator[tuple[str, str, int]]:
    for piece in topology.endpoint_slices:
        for address in (address for endpoint in piece.endpoints for address in endpoint.addresses):
            for port in piece.ports:
                if port.port is not None:
                    yield address, port.protocol, port.port


def _others(topology: Topology) -> Iterator[tuple[str, str, int]]:
    ports: set[tuple[str, int]] = set()
    for service in topology.services:
        with suppress(InputError):  # whose ports nothing tells: it can have no endpoint
            ports |= {
                (port.protocol, port.port) for port in endpoint_ports(service, topology.endpoint_slices) if port.port
            }
    for host in topology.hosts:
        if host.proxy_mode is None and not host.forwarding:
            for address in topology.addresses(host.name):
                for protocol, port in sorted(ports):
                    yield str(address), protocol, port


class Servers:
    """The servers of all endpoints, for the length of a block in a running event loop."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._listeners: list[asyncio.Server] = []
        self._echoes: list[asyncio.DatagramTransport] = []
        self._connections: set[asyncio.StreamWriter] = set()
        self._answering: set[tuple[str, str, SocketAddress]] = set()

    async def __aenter__(self) -> Self:
        """Open all sockets: from here on every endpoint answers."""
        for server in self._lacking():
            await self._open(*server)
        return self

    async def follow(self) -> None:
        """Have those answer as well that the Services of now have; where somebody's own server listens, that does."""
        for server in self._lacking():
            try:
                await self._open(*server)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise

    def _lacking(self) -> list[tuple[str, str, SocketAddress]]:
        lab = self._lab
        wanted = (one for one in servers(lab.current) if Family.of(ip_address(one[2].address)) in lab.families)
        return [one for one in wanted if one not in self._answering]

    async def _open(self, host: str, protocol: str, own: SocketAddress) -> None:
        namespace = self._lab.hosts[host].namespace
        if protocol == "TCP":
            self._listeners.append(await self._listen(host, namespace, own))
        elif protocol == "UDP":
            self._echoes.append(await _echo(namespace, own))
        self._answering.add((host, protocol, own))

    async def __aexit__(self, *_: object) -> None:
        """Close all sockets at once: an orphaned connection would hold its namespace."""
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

        return await asyncio.start_server(answer, sock=listen_first(namespace, own))


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
