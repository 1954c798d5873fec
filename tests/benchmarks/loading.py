"""How long rules take to load, beside the same text given to iptables-restore or nft by hand.

    python tests/benchmarks/loading.py

Each load is into a fresh namespace. The bar is a ratio of 1.2; nothing is judged here.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

from measure import interleaved, machine, milliseconds, told

from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.netns import Namespace, Nft, Xtables
from lab.topology.kubernetes import parse_objects
from lab.words import Backend, Family

ENDPOINTS = 10


def objects(count):
    """Make services with ten endpoints each."""
    services, slices = [], []
    for number in range(count):
        name, vip = f"service-{number}", f"10.{96 + number // 65536}.{number // 256 % 256}.{number % 256}"
        metadata = {"name": name, "namespace": "default"}
        ports = [{"port": 80}]
        services += parse_objects(
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": vip, "ports": ports}}
        )
        first = number * ENDPOINTS
        addresses = [
            f"10.{128 + one // 65536}.{one // 256 % 256}.{one % 256}" for one in range(first, first + ENDPOINTS)
        ]
        slices += parse_objects(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address]} for address in addresses],
                "ports": [{"port": 8080}],
            }
        )
    return services, slices


def loaded(work):
    """Time one load in a fresh namespace; return milliseconds."""
    with closing(Namespace.create()) as namespace:
        kept = []
        taken = milliseconds(lambda: kept.append(work(namespace)))
        for one in kept:
            if one is not None:
                one.close()
    return taken


def compare(title, rounds, lab, by_hand):
    """Print what both take, and the ratio of their minima: what is more is another program's turn."""
    times = interleaved(rounds, {"lab": lambda: loaded(lab), "by hand": lambda: loaded(by_hand)})
    print(f"{title}: ratio {min(times['lab']) / min(times['by hand']):.2f}")
    for name, taken in times.items():
        print(f"  {name:8} {told(taken)}", flush=True)


def run(command, path, namespace, lock):
    with namespace.entered(), path.open() as stream:
        subprocess.run(
            command,
            stdin=stream,
            check=True,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "XTABLES_LOCKFILE": str(lock)},
        )


def with_iptables(folder, count, backend, rounds):
    text = iptables.render(*objects(count), ProxyOptions(Family.IPV4, version="v1.29", nfacct=False)).restore
    path, lock = folder / "restore", folder / "lock"
    path.write_text(text)
    command = [f"iptables-{backend}-restore", "-w", "5", "-W", "100000", "--noflush", "--counters"]

    def lab(namespace):
        xtables = Xtables(namespace, backend)
        xtables.start_restore(4, text).finish()
        return xtables

    title = f"{count:,} services, iptables-{backend}-restore"
    compare(title, rounds, lab, lambda namespace: run(command, path, namespace, lock))


def with_nft(folder, count, version, rounds):
    text = nftables.render(*objects(count), ProxyOptions(Family.IPV4, version=version))
    path, lock = folder / "script", folder / "lock"
    path.write_text(text)

    def lab(namespace):
        nft = Nft(namespace)
        nft.run(text)
        return nft

    title = f"{count:,} services, nft, {version}"
    compare(title, rounds, lab, lambda namespace: run(["nft", "-f", "-"], path, namespace, lock))


def main():
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with_iptables(folder, 1_000, Backend.NFT, 3)
        with_iptables(folder, 1_000, Backend.LEGACY, 5)
        with_iptables(folder, 10_000, Backend.LEGACY, 2)
        with_nft(folder, 1_000, "v1.35", 2)
        with_nft(folder, 1_000, "v1.36", 2)


if __name__ == "__main__":
    main()
