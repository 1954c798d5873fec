"""How fast a lab is built, beside what the kernel itself takes for it.

    python tests/benchmarks/build.py [ROUNDS]

The raw limit below does nothing but what must be done: unshare, and one batch of rtnetlink messages a namespace.
It builds the same star: hosts around a router, of which client, node and server is the smallest.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import sys
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network

from measure import interleaved, machine, milliseconds, told, wait_until_freed

from lab.fabric.lab import Lab
from lab.netns import userns
from lab.netns.syscalls import CLONE_NEWNET, setns, unshare
from lab.topology.model import End, Host, Link, Topology
from lab.topology.route_keys import Route
from lab.vocabulary import Family

SIZES = {"client, node, server": 2, "200 hosts around a router": 200}
BAR = 2.0


def router_address(number: int) -> str:
    return f"10.{number // 64}.{number % 64 * 4}.1"


def host_address(number: int) -> str:
    return f"10.{number // 64}.{number % 64 * 4}.2"


# --- the raw limit: nothing of the lab's -----------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def message(kind: int, body: bytes, *, create: bool = False, acknowledge: bool = False) -> bytes:
    flags = 0x1 | (0x600 if create else 0) | (0x4 if acknowledge else 0)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def up(index: int) -> bytes:
    return message(16, struct.pack("=BxHiII", 0, 0, index, 1, 1))


def veth(index: int, name: str, peer_namespace: int) -> bytes:
    peer = struct.pack("=BxHiII", 0, 0, 2, 0, 0) + attribute(3, b"eth0\0")
    peer += attribute(28, struct.pack("=I", peer_namespace))
    information = attribute(1, b"veth\0") + attribute(2, attribute(1, peer))
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + attribute(3, name.encode() + b"\0")
    return message(16, body + attribute(18, information), create=True)


def address(index: int, text: str) -> bytes:
    packed = socket.inet_aton(text)
    body = struct.pack("=BBBBi", socket.AF_INET, 30, 0, 0, index)
    return message(20, body + attribute(2, packed) + attribute(1, packed), create=True)


def default_route(gateway: str, *, acknowledge: bool) -> bytes:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
    body += attribute(5, socket.inet_aton(gateway))
    return message(24, body, create=True, acknowledge=acknowledge)


def send(sock: socket.socket, batch: bytes) -> None:
    sock.send(batch)
    (code,) = struct.unpack_from("=i", sock.recv(4096), 16)
    assert code == 0, os.strerror(-code)


class RawStar:
    def __init__(self, count: int) -> None:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.namespaces: list[int] = []
        self.sockets: list[socket.socket] = []
        for number in range(count + 1):
            unshare(CLONE_NEWNET)
            self.namespaces.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            self.sockets.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
            if number == count:  # the router, and we are in it
                forwarding = os.open("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY | os.O_CLOEXEC)
                os.write(forwarding, b"1")
                os.close(forwarding)
        setns(home, CLONE_NEWNET)
        os.close(home)
        router = self.sockets[count]
        batch = up(1)
        for number in range(count):
            batch += veth(number + 2, f"to{number}", self.namespaces[number])
            batch += address(number + 2, router_address(number))
            batch += up(number + 2)
            if len(batch) > 65536 or number == count - 1:
                send(router, batch + message(16, struct.pack("=BxHiII", 0, 0, 1, 1, 1), acknowledge=True))
                batch = b""
        for number in range(count):
            batch = up(1) + address(2, host_address(number)) + up(2)
            send(self.sockets[number], batch + default_route(router_address(number), acknowledge=True))

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        for namespace in self.namespaces:
            os.close(namespace)


# --- the lab ---------------------------------------------------------------------------------------


def star(count: int) -> Topology:
    everywhere = ip_network("0.0.0.0/0")
    hosts = [Host(f"host{n}", routes=(Route(everywhere, ip_address(router_address(n))),)) for n in range(count)]
    links = [
        Link(
            (
                End("router", f"to{n}", (ip_interface(f"{router_address(n)}/30"),)),
                End(f"host{n}", "eth0", (ip_interface(f"{host_address(n)}/30"),)),
            )
        )
        for n in range(count)
    ]
    return Topology(name="star", hosts=(*hosts, Host("router", forwarding=True)), links=tuple(links))


def build_lab(topology: Topology, descriptors: set[int]) -> float:
    before = len(os.listdir("/proc/self/fd"))
    made: list[Lab] = []
    taken = milliseconds(lambda: made.append(Lab(topology, family=Family.IPV4)))
    descriptors.add(len(os.listdir("/proc/self/fd")) - before)
    made[0].close()
    return taken


def build_raw(count: int) -> float:
    made: list[RawStar] = []
    taken = milliseconds(lambda: made.append(RawStar(count)))
    made[0].close()
    return taken


def main(rounds: int) -> None:
    userns.enter()  # of our own, so that its namespaces can be counted
    print(machine())
    for title, count in SIZES.items():
        descriptors: set[int] = set()
        candidates = {
            "raw limit": partial(build_raw, count),
            "lab": partial(build_lab, star(count), descriptors),
        }
        some = rounds if count < 10 else max(3, rounds // 5)
        times = interleaved(some, candidates, wait_until_freed)
        print(f"{title} ({some} pairs)")
        for name, taken in times.items():
            print(f"  {name:10} {told(taken)}")
        ratio = statistics.median(times["lab"]) / statistics.median(times["raw limit"])
        pairs = statistics.median(a / b for a, b in zip(times["lab"], times["raw limit"], strict=True))
        print(f"  lab / raw limit: {ratio:.2f} (of the pairs: {pairs:.2f}; bar {BAR})")
        print(f"  the lab holds {', '.join(map(str, sorted(descriptors)))} descriptors for {count + 1} hosts")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if sys.argv[1:] else 50)
