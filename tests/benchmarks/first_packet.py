"""The first packet of a connection through the last of many services: why nftables mode exists.

    python tests/benchmarks/first_packet.py [SERVICES]

Connects to the first service's VIP and to the last one's in turn, each time from a fresh port, and tells how long the
handshake takes: in iptables mode a packet is held against a rule a service, in nftables mode it is looked up in a map.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from functools import partial

from measure import interleaved, machine, milliseconds, told
from partial_sync import crowded

from lab.fabric.lab import Lab
from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.netns import userns
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode

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


def measure(topology, name, last):
    """Load the rules of one kind, and tell both handshakes."""
    built = []
    loaded = milliseconds(lambda: built.append(Lab(topology, family=Family.IPV4)))
    with built[0] as lab, contextlib.ExitStack() as listeners:
        for host in topology.servers:
            with lab.hosts[host.name].namespace.entered():
                listeners.enter_context(socket.create_server(("", 80), backlog=1024))
        places = {"first": "10.96.0.0", "last": last}
        times = interleaved(ROUNDS, {place: partial(handshake, lab, vip) for place, vip in places.items()})
    print(f"{name}: lab with rules up in {loaded / 1e3:.1f} s")
    for place, taken in times.items():
        print(f"  the {place:5} service   {told(taken)}")


def main(count):
    userns.ensure()
    begun = time.perf_counter()
    plain = crowded(count)
    parsed = time.perf_counter() - begun
    print(f"{count:,} services with 3 endpoints each; objects parsed in {parsed:.1f} s. {machine()}")
    for name, (mode, version, backend) in KINDS.items():
        topology = with_proxy(plain, mode, version, backend)
        print(f"{name}: rules written in {render(topology, mode, version) / 1e3:.2f} s")
        measure(topology, name, f"10.96.{(count - 1) // 256}.{(count - 1) % 256}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
