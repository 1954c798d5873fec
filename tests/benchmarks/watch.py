"""A download through a VIP, with and without `lab watch --here` on its node: what looking on costs.

    python tests/benchmarks/watch.py [MEGABYTES]

The download is as fast as the kernel's, client and server being processes of their own. The watch is the command, in
the node's namespace. Both kinds take turns, and the medians' ratio is told, with the processor time of the watch.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from functools import partial

from measure import interleaved, machine

from lab.fabric.lab import Lab
from lab.netns import userns
from lab.topology.reader import load
from lab.vocabulary import Family

ROUNDS = 7
WARM_UP = 1.0  # seconds in which a watch finds out how busy its node is
VIP = ("192.168.0.2", 80)
SERVER = """
import socket, sys
server = socket.create_server(("", 80))
print("ready", flush=True)
data = memoryview(bytes(1 << 20))
while True:
    client = server.accept()[0]
    with client:
        try:
            while True:
                client.sendall(data)
        except OSError:
            pass
"""


def download(lab, megabytes):
    """Return how many megabytes a second came through, after a warm-up."""
    buffer = bytearray(1 << 20)
    with lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.setblocking(True)
        client.connect(VIP)
        end = time.monotonic() + WARM_UP
        while time.monotonic() < end:
            client.recv_into(buffer)
        begun, left = time.perf_counter(), megabytes << 20
        while left > 0:
            left -= client.recv_into(buffer)
        taken = time.perf_counter() - begun
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return megabytes / taken


def watched(lab, megabytes, said):
    """Return the same while the node is watched, and keep what the watch said and what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    with lab.hosts["node"].namespace.entered():
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "watch", "--here"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    process.stderr.readline()
    rate = download(lab, megabytes)
    process.send_signal(signal.SIGINT)
    answer, _rest = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said.append((spent / (time.monotonic() - begun), after.ru_maxrss / 1024, answer.splitlines()))
    return rate


def main(megabytes):
    userns.ensure()
    said = []
    with Lab(load("kube-proxy"), family=Family.IPV4) as lab:
        with lab.hosts["server"].namespace.entered():
            server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
        server.stdout.readline()
        try:
            kinds = {"alone": partial(download, lab, megabytes), "watched": partial(watched, lab, megabytes, said)}
            rates = interleaved(ROUNDS, kinds)
        finally:
            server.kill()
            server.wait()
    print(f"{megabytes:,} MB a download, {ROUNDS} rounds. {machine()}")
    medians = {name: statistics.median(taken) for name, taken in rates.items()}
    for name, taken in rates.items():
        print(f"  {name:8} median {medians[name]:8,.0f} MB/s   from {min(taken):8,.0f} to {max(taken):8,.0f}")
    print(f"  watched / alone: {medians['watched'] / medians['alone']:.3f}")
    share, memory, answer = said[-1]
    print(f"  the watch took {share:.1%} of a processor, and {memory:.0f} MiB; it said:")
    print(*(f"    {line}" for line in answer), sep="\n")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", os.getcwd())
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
