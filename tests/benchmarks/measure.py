"""What the benchmarks share: medians of interleaved rounds, and the words they are told in."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.errors import MachineError
from lab.netns import Namespace

LIMIT = Path("/proc/sys/user/max_net_namespaces")


def milliseconds(action: Callable[[], object]) -> float:
    """Return how long ``action`` takes."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1e3


def interleaved(
    rounds: int, candidates: Mapping[str, Callable[[], float]], between: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Let all candidates measure once a round, in turn, so that a machine's moods meet them all alike.

    The first round warms caches and is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        # Every other round the other way round: each is first as often as it is last.
        for name in list(candidates)[:: 1 if number % 2 else -1]:
            taken = candidates[name]()
            if number:
                times[name].append(taken)
            between()
    return times


def told(times: list[float]) -> str:
    """Tell median, minimum and 90th percentile, in milliseconds."""
    ordered = sorted(times)
    late = ordered[int(len(ordered) * 0.9)]
    return f"median {statistics.median(times):8.2f} ms   minimum {ordered[0]:8.2f}   9 of 10 under {late:8.2f}"


def machine() -> str:
    """Tell on what this was measured, and how busy it was."""
    loads = " ".join(f"{load:.2f}" for load in os.getloadavg())
    return f"Linux {os.uname().release}, {os.cpu_count()} processors, load {loads}"


def wait_until_freed() -> None:
    """Wait until the kernel has taken down every namespace of this user namespace but the one we live in.

    It counts them: with the limit at two, another one can be made exactly when every other one is gone.
    """
    before = LIMIT.read_text()
    LIMIT.write_text("2")
    try:
        while True:
            try:
                Namespace.create().close()
            except MachineError:
                time.sleep(0.002)
            else:
                return
    finally:
        LIMIT.write_text(before)
