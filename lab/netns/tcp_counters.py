# SPDX-License-Identifier: MIT
"""What the kernel counts of TCP in a namespace, as ``nstat`` shows it."""

from __future__ import annotations

from pathlib import Path

from lab.netns.namespace import Namespace

# Below the thread's own, for /proc/net is the main thread's.
_FILES = tuple(Path("/proc/thread-self/net", name) for name in ("snmp", "netstat"))


def tcp_counters(namespace: Namespace) -> dict[str, int]:
    """Return the counters by the kernel's names for them (net/ipv4/proc.c), without the protocols' prefixes.

    TCP over IPv6 counts here as well.
    """
    counters: dict[str, int] = {}
    with namespace.entered():
        lines = [line for file in _FILES for line in file.read_text().splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if names.startswith("Tcp"):
            counters.update(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    return counters
