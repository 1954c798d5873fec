"""A node of thousands of Services, by its dump: read, loaded and judged, beside the loader alone.

    python tests/benchmarks/own_node.py [SERVICES]

Each Service has 10 endpoints. The bar, of 10,000: one and a half times what the loader takes, and two seconds, in
under 600 MiB. As ever, nothing is judged here. `lab run` tries the bug and its controls there without a fix, then with
two that can be added to the rules.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from loading import objects
from measure import machine

from lab.kubeproxy import ProxyOptions
from lab.netns import Namespace, Nft, Xtables
from lab.rules.expected import printed
from lab.rules.source import Proxy
from lab.vocabulary import Backend, Family, ProxyMode


def dump(count: int, mode: ProxyMode, version: str, backend: Backend) -> str:
    """Return what iptables-save or nft would print on such a node."""
    options = ProxyOptions(Family.IPV4, version=version, cluster_cidrs=("10.128.0.0/9",), nfacct=False)
    proxy = Proxy("", mode, backend, options, *map(tuple, objects(count)))
    return printed(proxy, proxy.render())


def loaded(text: str, mode: ProxyMode, backend: Backend) -> float:
    """Return how many seconds the loader alone takes, in a fresh namespace."""
    with closing(Namespace.create()) as namespace:
        begun = time.perf_counter()
        if mode is ProxyMode.NFTABLES:
            with closing(Nft(namespace)) as nft:
                nft.run(text)
        else:
            with closing(Xtables(namespace, backend)) as xtables:
                xtables.start_restore(4, text, unused=True).finish()
        return time.perf_counter() - begun


def judged(path: Path, *options: str) -> tuple[float, int, str]:
    """Return the seconds that the command takes, the most memory that it had in MiB, and its first line."""
    command = [sys.executable, "-m", "lab", "run", "--node", str(path), *options]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        answered = time.perf_counter() - begun
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - begun
    told = f"exit code {process.returncode}, answer after {answered:.1f} s: {first[:60].strip()}"
    return taken, used.ru_maxrss // 1024, told


def main() -> None:
    """Print figures and ratios."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(machine())
    kinds = (
        (ProxyMode.IPTABLES, "v1.14", Backend.LEGACY),
        (ProxyMode.IPTABLES, "v1.36", Backend.NFT),
        (ProxyMode.NFTABLES, "v1.36", Backend.NFT),
    )
    with tempfile.TemporaryDirectory() as name:
        for mode, version, backend in kinds:
            path = Path(name, "rules.txt")
            # In a process of its own: what Linux counts as a program's most memory is at least its starter's.
            script = f"import sys; sys.argv[1:] = []; from own_node import *; print(dump({count}, ProxyMode.{mode.name}"
            script += f", {version!r}, Backend.{backend.name}), end='')"
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
            with path.open("w") as stream:
                subprocess.run([sys.executable, "-c", script], stdout=stream, check=True, env=environment)
            loading = f"import sys; from own_node import *; print(loaded(open({str(path)!r}).read()"
            loading += f", ProxyMode.{mode.name}, Backend.{backend.name}))"
            alone = float(
                subprocess.run(
                    [sys.executable, "-c", loading], capture_output=True, text=True, check=True, env=environment
                ).stdout
            )
            title = f"{count:,} Services, {mode} {version}, {backend}"
            print(f"{title}: {path.stat().st_size / 1e6:.0f} MB, the loader alone {alone:.1f} s", flush=True)
            options = ("--backend", backend) if mode is ProxyMode.IPTABLES else ()
            for words, fixes in (("without a fix", ["none"]), ("with two fixes", ["be-liberal", "drop-forward"])):
                given = [word for fix in fixes for word in ("--fix", fix)]
                taken, memory, told = judged(path, *options, *given)
                ratio = (taken - 2) / alone
                print(f"  {words}: {taken:.1f} s, {ratio:.2f} of it and 2 s, {memory} MiB, {told}", flush=True)


if __name__ == "__main__":
    main()
