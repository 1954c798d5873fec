"""A lab with data in flight that can never arrive, both ways; says "in flight", and then waits to be killed."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import socket
import struct
import sys
import termios

from lab.evidence.packet import SocketAddress
from lab.fabric.lab import Lab
from lab.netns import userns
from lab.topology.reader import load
from lab.traffic.tcp import Attempt, listen

SERVER = SocketAddress("10.0.1.2", 80)
CLIENT = SocketAddress("10.0.0.2", 34567)
HOLE = """
table inet hole {
    chain forward { type filter hook forward priority -300; policy drop; }
}
"""


async def connected(lab: Lab) -> list[socket.socket]:
    client, server = lab.hosts["client"].namespace, lab.hosts["server"].namespace
    listener = listen(server, SERVER)
    async with Attempt("client", client, CLIENT, [("server", listener)], SERVER) as attempt:
        ends = await attempt.ends()
    return [end.socket for end in ends]


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass


def unacknowledged(sock: socket.socket) -> int:
    """SIOCOUTQ, tcp(7)."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


if __name__ == "__main__":
    userns.ensure()
    running = Lab(load("kube-proxy"))
    sockets = asyncio.run(connected(running))
    running.hosts["node"].nft.run(HOLE)
    for sock in sockets:
        fill(sock)
    assert all(unacknowledged(sock) > 65536 for sock in sockets)
    print("in flight", flush=True)
    sys.stdout.close()
    signal.pause()
