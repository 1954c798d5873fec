"""What one endpoint's change costs among many services, beside the full load, and beside the same text by hand.

    python tests/benchmarks/partial_sync.py [SERVICES]

Each service has three endpoints; one of the last service's is removed and added again. "By hand" gives the texts of
kube-proxy's partial sync to the same program, and nothing else. With iptables-nft a full load of 10,000 services takes
minutes (iptables 1.8.9), so a tenth of them is loaded. The bar: the cost of a partial sync, not of a full one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from ipaddress import ip_network

from measure import interleaved, machine, milliseconds, told

from lab.fabric.lab import Lab
from lab.kubeproxy import iptables, nftables
from lab.kubeproxy.services import service_ports
from lab.netns import userns
from lab.topology.kube_proxy import proxy_options
from lab.topology.node_change import NodeChange
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.objects import endpoint_slice, service

PODS = ("10.0.1.2", "10.0.2.2", "10.0.3.2")


def crowded(count):
    """Return the topology `endpoints` with many services."""
    services, slices = [], []
    for number in range(count):
        name = f"service-{number}"
        services.append(service(name, clusterIP=f"10.96.{number // 256}.{number % 256}"))
        slices.append(endpoint_slice(name, [{"addresses": [pod]} for pod in PODS], Family.IPV4, target=80))
    cidrs = (ip_network("10.96.0.0/12"),)
    return dataclasses.replace(
        load("endpoints"), services=tuple(services), endpoint_slices=tuple(slices), service_cidrs=cidrs
    )


def texts(lab, last):
    """Return what kube-proxy would give to its program for the removal, and for the addition."""
    (node,) = lab.topology.nodes
    options = proxy_options(lab.topology, node, Family.IPV4, NodeChange())
    there = service_ports(lab.services, lab.endpoint_slices, options)
    lab.endpoints.remove(last, PODS[2])
    gone = service_ports(lab.services, lab.endpoint_slices, options)
    lab.endpoints.add(last, PODS[2])
    if node.proxy_mode is ProxyMode.IPTABLES:
        return iptables.sync(there, gone, options), iptables.sync(gone, there, options)
    removal, addition = nftables.sync(there, gone, options), nftables.sync(gone, there, options)
    return removal.script, removal.afterwards, addition.script


def measure(count, mode, version, backend, rounds):
    topology, last = with_proxy(crowded(count), mode, version, backend), f"service-{count - 1}"
    built = []
    full = milliseconds(lambda: built.append(Lab(topology, family=Family.IPV4)))
    with built[0] as lab:
        node = lab.hosts["node"]
        by_hand = texts(lab, last)

        def change():
            lab.endpoints.remove(last, PODS[2])
            lab.endpoints.add(last, PODS[2])

        def load_texts():
            for text in by_hand:
                if mode is ProxyMode.IPTABLES:
                    node.xtables.start_restore(4, text).finish()
                else:
                    node.nft.run(text)

        pairs = interleaved(rounds, {"lab": lambda: milliseconds(change), "by hand": lambda: milliseconds(load_texts)})
    program = f"iptables-{backend}" if mode is ProxyMode.IPTABLES else "nft"
    ratio = min(pairs["lab"]) / 2 / full
    print(f"{count:,} services, {program}, {version}: full load {full:,.0f} ms; one change is {ratio:.3f} of it")
    for name, times in pairs.items():
        print(f"  {name:8} {told([time / 2 for time in times])}", flush=True)


def main(count):
    userns.ensure()
    print(machine())
    measure(count, ProxyMode.IPTABLES, "v1.29", Backend.LEGACY, 5)
    measure(max(count // 10, 1), ProxyMode.IPTABLES, "v1.29", Backend.NFT, 5)
    measure(count, ProxyMode.NFTABLES, "v1.35", None, 5)
    measure(count, ProxyMode.NFTABLES, "v1.36", None, 5)


if __name__ == "__main__":
    services = int(sys.argv[1]) if sys.argv[1:] else 10_000
    if services < 1:
        sys.exit("SERVICES: 1 or more")
    with contextlib.suppress(KeyboardInterrupt):
        main(services)
