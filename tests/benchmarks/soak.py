"""Whether verdicts stay the same under load: every trial again and again, disturbed from outside.

    python tests/benchmarks/soak.py [CASE ...] [--fix FIX ...] [--rounds N] [--seed N]
        [--topology NAME] [--proxy-mode MODE] [--proxy-version VERSION] [--backend BACKEND] [--family FAMILY]

Every processor but one is kept busy, and the process that runs the trials is stopped (SIGSTOP) and continued at random
moments. Without CASE these are all that are not slow, without FIX all fixes; the other words are those of `lab run`, so
that the command of one trial is its soak as well. What was not as expected is printed, with its disagreements and its
timeline; the exit code is 1 where there was any, or where not all were run. The seed decides in which order trials are
run, and when and for how long they are stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from measure import machine

from lab.cases import find, usual
from lab.errors import LabError, MissingError, tell_warnings
from lab.fixes import FIXES
from lab.netns import userns
from lab.report.timeline import timeline_text
from lab.topology.reader import load
from lab.trial import batch, runner
from lab.trial.probe import ask
from lab.trial.setting import Setting
from lab.vocabulary import Backend, Family, ProxyMode

# In seconds, exponential: what a scheduler may take away, and now and then more than a delayed acknowledgement waits
# (40 ms, TCP_DELACK_MIN) or TCP waits before it sends again (200 ms, TCP_RTO_MIN; include/net/tcp.h). Seldom for longer
# than an entry lives after a RST (10 s): the trial has to see that itself.
_BETWEEN_STOPS = 0.03
_STOPS = (0.001, 0.01, 0.05, 0.2, 12)
_WEIGHTS = (1000, 1000, 500, 100, 1)
_PR_SET_PDEATHSIG = 1  # prctl(2)

#: A setting's place in the list, and what was wrong with the trial: empty where nothing was.
Outcome = tuple[int, str]


@contextlib.contextmanager
def beside(work: Callable[..., None], *arguments: object) -> Iterator[int]:
    """Run something in a process of its own, for as long as the block lasts; it dies with this process."""
    parent = os.getpid()

    def run() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for who waits for this
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            work(*arguments)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()  # a stopped one as well
        process.join()


def keep_busy() -> None:
    """Use a processor up."""
    while True:
        pass


def run(settings: list[Setting], order: list[int], family: Family, results: Connection) -> None:
    """Run the trials, and tell what came of each as soon as it is over."""
    userns.ensure()
    tell_warnings()
    with asyncio.Runner() as loop:
        behaviour = loop.run(ask(family))
        for number in order:
            try:
                result = loop.run(runner.run(settings[number], behaviour))
            except MissingError as missing:
                results.send((number, f"cannot be had here: {missing}"))
            except LabError as error:
                results.send((number, f"{type(error).__name__}: {error}"))
            else:
                verdict = result.verdict
                told = [f"{verdict.outcome} ({verdict.decided_by})", *verdict.disagreements]
                lines = "\n  ".join([*told, *timeline_text(result.timeline).splitlines()])
                results.send((number, "" if result.as_expected else lines))
    results.close()


def disturbed(pid: int, results: Connection, chance: random.Random) -> Iterator[Outcome]:
    """Stop and continue a process at random moments; yield what it tells meanwhile, until it has told all."""

    def told(seconds: float) -> Iterator[Outcome]:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and results.poll(left):
            yield results.recv()

    with contextlib.suppress(EOFError):
        while True:
            yield from told(chance.expovariate(1 / _BETWEEN_STOPS))
            os.kill(pid, signal.SIGSTOP)
            [mean] = chance.choices(_STOPS, _WEIGHTS)
            yield from told(chance.expovariate(1 / mean))
            os.kill(pid, signal.SIGCONT)


def main(arguments: argparse.Namespace) -> int:
    cases = [find(name) for name in arguments.cases] or list(usual(all_=True, slow=False))
    fixes = [FIXES[name] for name in arguments.fix or FIXES]
    topology = load(arguments.topology) if arguments.topology else None
    named = bool(arguments.cases)
    proxy = (arguments.proxy_mode, arguments.proxy_version, arguments.backend)
    settings = batch.select(cases, fixes, topology, arguments.family, proxy, named=named).settings
    chance = random.Random(arguments.seed)
    order = [number for _ in range(arguments.rounds) for number in chance.sample(range(len(settings)), len(settings))]
    print(f"{machine()}; {len(settings)} trials by {arguments.rounds} rounds, seed {arguments.seed}", flush=True)
    runs: Counter[int] = Counter()
    wrong: Counter[int] = Counter()
    began = time.monotonic()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        for _ in range(max(1, (os.cpu_count() or 1) - 1)):
            stack.enter_context(beside(keep_busy))
        ear, mouth = multiprocessing.get_context("fork").Pipe(duplex=False)  # its end is seen where nobody else has it
        worker = stack.enter_context(beside(run, settings, order, arguments.family, mouth))
        mouth.close()
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))  # what came of it so far is told
        for number, fault in disturbed(worker, ear, chance):
            runs[number] += 1
            if fault:
                wrong[number] += 1
                setting = settings[number]
                print(f"{setting.case.name}, fix {setting.fix.name}, run {runs[number]}: {fault}", flush=True)
    print(f"{runs.total()} trials in {time.monotonic() - began:.0f} s, {wrong.total()} not as expected")
    for number, count in wrong.most_common():
        setting = settings[number]
        print(f"  {setting.case.name}, fix {setting.fix.name}: {count} of {runs[number]}")
    if runs.total() < len(order):
        print(f"{len(order) - runs.total()} trials were not run")
    return 1 if wrong or runs.total() < len(order) else 0


PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("cases", nargs="*", metavar="CASE")
PARSER.add_argument("--fix", action="append", choices=list(FIXES))
PARSER.add_argument("--rounds", type=int, default=10)
PARSER.add_argument("--topology", default=None, help="where the cases play, instead of each in its own")
PARSER.add_argument("--proxy-mode", type=ProxyMode, choices=list(ProxyMode))
PARSER.add_argument("--proxy-version")
PARSER.add_argument("--backend", type=Backend, choices=list(Backend))
PARSER.add_argument("--family", type=Family, choices=list(Family), default=Family.IPV4)
PARSER.add_argument("--seed", type=int, default=1)

if __name__ == "__main__":
    try:
        sys.exit(main(PARSER.parse_args()))
    except LabError as error:  # a case or a topology that there is not
        PARSER.error(str(error))
