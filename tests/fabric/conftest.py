"""Nodes of both modes, with servers that say who they are, and a client that asks again and again."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
import struct
from contextlib import asynccontextmanager

import pytest

from lab.evidence.packet import SocketAddress
from lab.fabric.lab import Lab
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.traffic.tcp import address_family, listen
from lab.vocabulary import Backend, Family, ProxyMode

PATIENCE = 10  # seconds; the end of a wait that an event ends at once

# Chains and ways to write them: v1.14's, those since v1.29, chains of endpoints, maps of endpoints.
NODES = {
    "iptables-legacy-v1.14": (ProxyMode.IPTABLES, "v1.14", Backend.LEGACY),
    "iptables-nft-v1.29": (ProxyMode.IPTABLES, "v1.29", Backend.NFT),
    "nftables-v1.31": (ProxyMode.NFTABLES, "v1.31", None),
    "nftables-v1.36": (ProxyMode.NFTABLES, "v1.36", None),
}


@dataclasses.dataclass(frozen=True)
class Addresses:
    family: Family
    vip: str
    pods: tuple[str, str, str]


ADDRESSES = {
    Family.IPV4: Addresses(Family.IPV4, "192.168.0.2", ("10.0.1.2", "10.0.2.2", "10.0.3.2")),
    Family.IPV6: Addresses(Family.IPV6, "fd00:192:168::2", ("fd00:10:0:1::2", "fd00:10:0:2::2", "fd00:10:0:3::2")),
}


@pytest.fixture(params=list(Family), ids=str)
def addresses(request):
    return ADDRESSES[request.param]


@pytest.fixture(params=NODES)
def node(request):
    return NODES[request.param]


@pytest.fixture
def topology(node):
    return with_proxy(load("endpoints"), *node)


@pytest.fixture
def build(topology):
    """Build the lab with the first ``count`` servers as endpoints."""
    labs = []

    def build(addresses, count, change=None):
        lab = Lab(topology, family=addresses.family, change=change)
        labs.append(lab)
        for pod in addresses.pods[count:]:
            lab.endpoints.remove("web", pod)
        return lab

    yield build
    for lab in labs:
        lab.close()


def rules(lab, node="node"):
    """What the kernel has, without counters."""
    running = lab.hosts[node]
    if running.host.proxy_mode is ProxyMode.NFTABLES:
        return running.nft.run("list ruleset")
    text = "".join(running.xtables.save(family.version) for family in lab.families)
    return "\n".join(re.sub(r"\[\d+:\d+\] ?", "", line) for line in text.splitlines() if not line.startswith("#"))


@asynccontextmanager
async def servers(lab, addresses):
    """Every server host answers at port 80: with its name when asked, again and again."""

    async def answer(reader, writer):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            while await reader.read(1):
                writer.write(sock.getsockname()[0].encode())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    opened = [
        await asyncio.start_server(answer, sock=listen(lab.hosts[f"server-{number}"].namespace, SocketAddress(pod, 80)))
        for number, pod in enumerate(addresses.pods, 1)
    ]
    try:
        yield
    finally:
        for server in opened:
            server.close()


async def connect(lab, addresses):
    sock = lab.hosts["client"].namespace.socket(address_family(addresses.vip), socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(sock, (addresses.vip, 80))
    except BaseException:
        sock.close()
        raise
    return sock


async def ask(sock):
    """Return the address of whoever answers on a connection."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        await loop.sock_sendall(sock, b"?")
        return (await loop.sock_recv(sock, 100)).decode()


async def who(lab, addresses):
    """Connect once, and return who answered."""
    with await connect(lab, addresses) as sock:
        return await ask(sock)
