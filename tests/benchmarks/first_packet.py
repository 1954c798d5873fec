"""The first packet of a connection through the last of many services: why nftables mode exists.

    python tests/benchmarks/first_packet.py [SERVICES]

Connects to the first service's VIP and to the last one's in turn, each time from a fresh port, and tells how long the
handshake takes: in iptables mode the packet is held against one rule a service, in nftables mode it is looked up in a map.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from measure import interleaved, machine, milliseconds, told
from partial_sync import crowded

from lab.fabric import Lab
from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.netns import userns
from lab.trial import with_proxy
from lab.words import Backend, Family, ProxyMode

ROUNDS = 200
KINDS = {
    "iptables mode, legacy": (ProxyMode.IPTABLES, "v1.29", Backend.LEGACY),
    "nftables mode, v1.36": (ProxyMode.NFTABLES, "v1.36", None),
}


def handshake(lab, address):
    """Return how long a connection to the service takes to be there, in milliseconds."""
    with lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setblocking(True)
        taken = milliseconds(lambda: client.connect((address, 80)))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return taken


def render(topology, mode, version):
    """Return how long the rules take to be written, in milliseconds."""
    writer = iptables if mode is ProxyMode.IPTABLES else nftables
    options = ProxyOptions(family=Family.IPV4, version=version)
    return milliseconds(lambda: writer.render(topology.services, topology.endpoint_slices, options))


def main(count):
    userns.ensure()
    begun = time.perf_counter()
    plain = crowded(count)
    print(
        f"{count:,} services with 3 endpoints each; objects parsed in {time.perf_counter() - begun:.1f} s. {machine()}"
    )
    for name, (mode, version, backend) in KINDS.items():
        topology = with_proxy(plain, mode, version, backend)
        written = render(topology, mode, version)
        with contextlib.ExitStack() as ends:  # the listeners go before the lab does
            built = []
            loaded = milliseconds(lambda build=topology: built.append(Lab(build, family=Family.IPV4)))
            lab = ends.enter_context(built[0])
            for host in ("server-1", "server-2", "server-3"):
                with lab.hosts[host].namespace.entered():
                    ends.enter_context(socket.create_server(("", 80), backlog=1024))
            last = f"10.96.{(count - 1) // 256}.{(count - 1) % 256}"
            times = interleaved(
                ROUNDS,
                {"first": lambda: handshake(lab, "10.96.0.0"), "last": lambda: handshake(lab, last)},
            )
        print(f"{name}: written in {written / 1e3:.2f} s, lab with rules up in {loaded / 1e3:.1f} s")
        for place, taken in times.items():
            print(f"  the {place:5} service   {told(taken)}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
