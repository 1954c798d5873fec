"""How long rules take to load, beside the same text given to iptables-restore or nft by hand; and to save and compare.

    python tests/benchmarks/loading.py

Each load is into a fresh namespace. The bar is a ratio of 1.2; nothing is judged here. `lab rules --saved` and
`--diff` are set beside rendering alone and, where a kernel has the rules, beside iptables-save or nft list itself; as
commands, with 10,000 Services of 10 endpoints each, they are to take under 30 s and 700 MB.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from measure import interleaved, machine, milliseconds, told

from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.kubernetes.parse import parse_objects
from lab.netns import Namespace, Nft, Xtables
from lab.rules.check import check
from lab.rules.expected import printed
from lab.rules.source import Proxy
from lab.vocabulary import Backend, Family, ProxyMode

ENDPOINTS = 10


def documents(count, family=Family.IPV4):
    """Make services with ten endpoints each."""
    ipv4 = family is Family.IPV4

    def address(first, second, number):
        if ipv4:
            return f"10.{first + number // 65536}.{number // 256 % 256}.{number % 256}"
        return f"fd00:{second}:{number // 65535 + 1:x}::{number % 65535 + 1:x}"

    for number in range(count):
        name, vip = f"service-{number}", address(96, 96, number)
        metadata = {"name": name, "namespace": "default"}
        ports = [{"port": 80}]
        yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": vip, "ports": ports}}
        first = number * ENDPOINTS
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4" if ipv4 else "IPv6",
            "endpoints": [{"addresses": [address(128, 44, one)]} for one in range(first, first + ENDPOINTS)],
            "ports": [{"port": 8080}],
        }


def objects(count, family=Family.IPV4):
    """Make the same as the lab knows them."""
    services, slices = [], []
    for document in documents(count, family):
        (services if document["kind"] == "Service" else slices).extend(parse_objects(document))
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


def run(command, path, namespace, lock, stdout=None):
    with namespace.entered(), path.open() as stream:
        subprocess.run(
            command,
            stdin=stream,
            stdout=stdout,
            check=True,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "XTABLES_LOCKFILE": str(lock)},
        )


def with_iptables(folder, count, backend, rounds):
    services, slices = objects(count)
    text = iptables.render(services, slices, ProxyOptions(Family.IPV4, version="v1.29", nfacct=False)).restore
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
    services, slices = objects(count)
    text = nftables.render(services, slices, ProxyOptions(Family.IPV4, version=version))
    path, lock = folder / "script", folder / "lock"
    path.write_text(text)

    def lab(namespace):
        nft = Nft(namespace)
        nft.run(text)
        return nft

    title = f"{count:,} services, nft, {version}"
    compare(title, rounds, lab, lambda namespace: run(["nft", "-f", "-"], path, namespace, lock))


def saved_and_compared(folder, count, version, backend, rounds):
    """Compare the roads that load nothing with rendering, and with what saves rules that are loaded.

    :param backend: of iptables mode; None for nftables mode.
    """
    mode = ProxyMode.IPTABLES if backend else ProxyMode.NFTABLES
    options = ProxyOptions(Family.IPV4, version=version, cluster_cidrs=("10.128.0.0/9",), nfacct=False)
    proxy = Proxy("", mode, backend or Backend.NFT, options, *map(tuple, objects(count)))
    script = proxy.render()
    text = printed(proxy, script)
    otherwise = replace(proxy, services=proxy.services[1:])  # the node has a Service that the objects lack
    with closing(Namespace.create()) as namespace, ExitStack() as stack:
        if backend:
            xtables = stack.enter_context(closing(Xtables(namespace, backend)))
            for one in script:
                xtables.start_restore(4, one, unused=True).finish()
            command = [f"iptables-{backend}-save"]
        else:
            nft = stack.enter_context(closing(Nft(namespace)))
            nft.run("".join(script))
            command = ["nft", "list", "ruleset"]
        work = {
            "render": proxy.render,
            "saved": lambda: printed(proxy, proxy.render()),
            "compare": lambda: check(proxy, text, "itself"),
            "explain": lambda: check(otherwise, text, "others"),
            command[0]: lambda: run(command, Path(os.devnull), namespace, folder / "lock", stdout=subprocess.DEVNULL),
        }
        times = interleaved(rounds, {name: partial(milliseconds, one) for name, one in work.items()})
    best = {name: min(taken) for name, taken in times.items()}
    # What explains differences is tried by comparing: how often as long as one comparison it takes is what counts.
    beside = dict.fromkeys(("saved", "compare"), ("render", command[0])) | {"explain": ("compare", "render")}
    for name, others in beside.items():
        ratios = ", ".join(f"{best[name] / best[other]:.2f} of {other}" for other in others)
        print(f"{count:,} services, {mode}, {version}, {name}: {ratios}")
    for name, taken in times.items():
        print(f"  {name:20} {told(taken)}", flush=True)


def as_commands(folder, count):
    """Run `lab rules` on a file of objects, and tell what it takes.

    What Linux counts as a program's most memory is at least what the one that started it had: this has to come first.
    """
    for family in Family:
        path, saved = folder / f"{family}.json", folder / "saved"
        with path.open("w") as stream:
            stream.write('{"apiVersion": "v1", "kind": "List", "items": [')
            stream.writelines(
                f"{',' if n else ''}{json.dumps(one)}\n" for n, one in enumerate(documents(count, family))
            )
            stream.write("]}")
        for mode, version in (
            ("iptables", "v1.23"),
            ("iptables", "v1.36"),
            ("nftables", "v1.35"),
            ("nftables", "v1.36"),
        ):
            options = (str(path), "--family", family, "--proxy-mode", mode, "--proxy-version", version)
            differs = (
                "--diff",
                str(saved),
                "--cluster-cidr",
                "10.128.0.0/9" if family is Family.IPV4 else "fd00:44::/32",
            )
            roads = {
                "--saved": (("--saved",), saved),
                "--diff": (("--diff", str(saved)), folder / "diff"),
                "--diff with another --cluster-cidr": (differs, folder / "diff"),
            }
            for title, (road, output) in roads.items():
                with output.open("w") as stream:
                    begun = time.perf_counter()
                    process = subprocess.Popen([sys.executable, "-m", "lab", "rules", *options, *road], stdout=stream)
                    _, status, used = os.wait4(process.pid, 0)
                taken, cpu = time.perf_counter() - begun, used.ru_utime + used.ru_stime
                print(
                    f"lab rules {title}, {count:,} services, {mode} {version}, {family}: exit code"
                    f" {os.waitstatus_to_exitcode(status)}, {taken:.1f} s, {cpu:.1f} s of a processor,"
                    f" {used.ru_maxrss // 1024} MB",
                    flush=True,
                )


def main():
    print(machine())
    gc.disable()  # as the command does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_commands(folder, 10_000)
        with_iptables(folder, 1_000, Backend.NFT, 3)
        with_iptables(folder, 1_000, Backend.LEGACY, 5)
        with_iptables(folder, 10_000, Backend.LEGACY, 2)
        with_nft(folder, 1_000, "v1.35", 2)
        with_nft(folder, 1_000, "v1.36", 2)
        saved_and_compared(folder, 10_000, "v1.29", Backend.LEGACY, 2)
        saved_and_compared(folder, 10_000, "v1.23", Backend.NFT, 1)
        saved_and_compared(folder, 1_000, "v1.35", None, 3)
        saved_and_compared(folder, 1_000, "v1.36", None, 3)


if __name__ == "__main__":
    main()
