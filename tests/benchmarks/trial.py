"""How long one trial takes, evidence included, and what it spends its time on.

    python tests/benchmarks/trial.py [ROUNDS]

A trial is the headline's: a lab of its own, kube-proxy's rules, all instruments, a connection through the VIP, the
packet that breaks it, the verdict, and the end of the lab. In the breakdown, time inside two parts counts for the
inner one; the loading of rules goes on while links are built, and what is told is the waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from measure import interleaved, machine, milliseconds, told

from lab.cases import find
from lab.fabric.kube_proxy import KubeProxy
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.netns import Namespace, RouteSocket, userns
from lab.scenario import ConnectionScenario
from lab.scenario.recorder import Recorder
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import runner
from lab.trial.probe import ask
from lab.trial.setting import Setting
from lab.vocabulary import Backend, Family, ProxyMode

BAR = 25  # ms
RATIO_BAR = 1.5  # a traced trial's time to that of another one

WAYS = {
    "iptables mode, backend nft": (ProxyMode.IPTABLES, Backend.NFT),
    "iptables mode, backend legacy": (ProxyMode.IPTABLES, Backend.LEGACY),
    "nftables mode": (ProxyMode.NFTABLES, None),
}

PARTS: dict[str, list[tuple[type, str]]] = {
    "namespaces": [(Namespace, "create")],
    "sysctls": [(Namespace, "set_sysctls")],
    "links": [(RouteSocket, "apply")],
    "rules: rendered, started": [(KubeProxy, "__init__")],
    "rules: waited for": [(KubeProxy, "finish")],
    "instruments": [(Recorder, "__init__")],
    "connection": [(ConnectionScenario, "establish")],
    "injection and barrier": [(ConnectionScenario, "inject")],
    "the stream goes on": [(ConnectionScenario, "go_on")],
    "counters read": [(ConnectionScenario, "finish")],
    "closing": [(Lab, "close")],
}


@dataclass
class Clock:
    """Adds up the time spent in each part; a part within a part stops the outer one's clock."""

    spent: dict[str, float] = field(default_factory=dict)
    _running: list[str] = field(default_factory=list)
    _since: float = 0.0

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.spent[self._running[-1]] = self.spent.get(self._running[-1], 0.0) + (now - self._since) * 1e3
        self._since = now

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_coroutine(*arguments: Any, **more: Any) -> Any:
                with self.part(name):
                    return await function(*arguments, **more)

            return timed_coroutine

        @functools.wraps(function)
        def timed(*arguments: Any, **more: Any) -> Any:
            with self.part(name):
                return function(*arguments, **more)

        return timed


@contextlib.contextmanager
def clocked(clock: Clock) -> Iterator[None]:
    """Put the clock around every part, for the length of the block."""
    with contextlib.ExitStack() as stack:
        for name, places in PARTS.items():
            for owner, method in places:
                owner = next(one for one in owner.__mro__ if method in vars(one))
                original = vars(owner)[method]
                inner = original.__func__ if isinstance(original, classmethod) else original
                timed = clock.timed(name, inner)
                setattr(owner, method, classmethod(timed) if isinstance(original, classmethod) else timed)
                stack.callback(setattr, owner, method, original)
        yield


def main(rounds: int) -> None:
    userns.ensure()
    print(machine())
    behaviour = asyncio.run(ask(Family.IPV4))
    for fix in FIXES.values():
        settings = {
            way: Setting(find("beyond-window"), fix, with_proxy(load("kube-proxy"), mode, None, backend), Family.IPV4)
            for way, (mode, backend) in WAYS.items()
        }
        with asyncio.Runner() as loop:

            def once(setting: Setting) -> float:
                def run() -> None:
                    assert loop.run(runner.run(setting, behaviour)).as_expected

                return milliseconds(run)

            times = interleaved(rounds, {way: partial(once, setting) for way, setting in settings.items()})
            print(f"one trial, fix {fix.name} ({rounds} each, interleaved; bar {BAR} ms in iptables mode)")
            for way, taken in times.items():
                print(f"  {way:30} {told(taken)}")
            if fix.name == "none":
                print_ratios(rounds, once, settings)
            if fix.name == "none":
                for way, setting in settings.items():
                    print_breakdown(way, partial(once, setting), rounds)


def print_ratios(rounds: int, once: Callable[[Setting], float], settings: dict[str, Setting]) -> None:
    """Print how much longer a trial takes that is traced."""
    both = {(way, traced): replace(one, traced=traced) for way, one in settings.items() for traced in (False, True)}
    times = interleaved(rounds, {key: partial(once, one) for key, one in both.items()})
    for way in settings:
        plain, traced = (statistics.median(times[way, traced]) for traced in (False, True))
        print(f"  {way:30} traced: {traced / plain:.2f} times as long (bar {RATIO_BAR})")


def print_breakdown(way: str, once: Callable[[], float], rounds: int) -> None:
    parts: dict[str, list[float]] = {name: [] for name in (*PARTS, "all the rest")}
    for _ in range(rounds):
        clock = Clock()
        with clocked(clock), clock.part("all the rest"):
            once()
        for name, times in parts.items():
            times.append(clock.spent.get(name, 0.0))
    print(f"  {way}, where the time goes (medians in ms):")
    for name, times in parts.items():
        print(f"    {name:26} {statistics.median(times):6.2f}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if sys.argv[1:] else 50)
