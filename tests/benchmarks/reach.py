"""How long a question of `lab reach` takes, beside a trial's time, and a whole matrix, traced and not.

    python tests/benchmarks/reach.py [ROUNDS]

A cell costs no more than a trial is what it is held to: labs and captures are built once for all cells; and tracing
is to add less than half to it.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from contextlib import suppress
from functools import partial

from measure import interleaved, machine, milliseconds, told

from lab.cases import find
from lab.fixes import NONE
from lab.netns import userns
from lab.results.reach import Reaches
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import runner
from lab.trial.probe import ask
from lab.trial.reach import Chosen, reach
from lab.trial.setting import Setting
from lab.vocabulary import Backend, Family, ProxyMode

NFTABLES = (ProxyMode.NFTABLES, "v1.36", None)


def main(rounds: int) -> None:
    userns.ensure()
    print(machine())
    place = with_proxy(load("services"), *NFTABLES)
    setting = Setting(find("beyond-window"), NONE, with_proxy(load("kube-proxy"), *NFTABLES), Family.IPV4)
    found: list[Reaches] = []

    async def trial() -> None:
        await runner.run(setting, behaviour, lambda _timeline: None)

    behaviour = asyncio.run(ask(Family.IPV4))
    times = interleaved(
        rounds,
        {
            "a trial": lambda: milliseconds(lambda: asyncio.run(trial())),
            "the matrix": lambda: milliseconds(lambda: found.append(reach(place, Family.IPV4, Chosen()))),
        },
    )
    for name, taken in times.items():
        print(f"{name:10}  {told(taken)}")
    cells, questions = len(found[0].cells), sum(len(cell.reached) for cell in found[0].cells)
    cell = statistics.median(times["the matrix"]) / cells
    print(f"{cells} cells, {questions} questions: {cell:.2f} ms a cell")
    print(f"a cell / a trial: {cell / statistics.median(times['a trial']):.2f} (bar 1)")
    for name in ("services", "kube-proxy"):
        for proxy in (NFTABLES, *((ProxyMode.IPTABLES, "v1.36", backend) for backend in Backend)):
            tell_of_trace(rounds, name, proxy)


def tell_of_trace(rounds: int, name: str, proxy: tuple[ProxyMode, str, Backend | None]) -> None:
    """Print how much tracing adds to a cell, its share of making the lab included."""
    place, cells = with_proxy(load(name), *proxy), [0]

    def asked(*, traced: bool) -> None:
        cells[0] = len(reach(place, Family.IPV4, Chosen(), traced=traced).cells)

    names = {"plain": False, "traced": True}
    times = interleaved(
        rounds, {one: partial(milliseconds, partial(asked, traced=traced)) for one, traced in names.items()}
    )
    plain, traced = (statistics.median(times[one]) / cells[0] for one in names)
    backend = f" ({proxy[2]})" if proxy[2] else ""
    added = f"{plain:6.2f} ms a cell, {traced:6.2f} traced: {traced / plain:.2f} (bar 1.5)"
    print(f"{name:10} {proxy[0]}{backend:9}  {added}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if sys.argv[1:] else 5)
