# SPDX-License-Identifier: MIT
"""The rounds of a batch: every trial once, then every trial again; results in this order, whoever was first."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from lab.results.result import Tally
from lab.trial import cursor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from lab.results.result import Trial
    from lab.trial.attempt import Attempt
    from lab.trial.setting import Setting
    from lab.trial.workers import Runner
    from lab.vocabulary import Behaviour

_SOON: Final = 5.0  # seconds; what is over by then needs no estimate
_SAMPLE: Final = 1.0  # seconds that an estimate is made from


async def rounds(settings: Sequence[Setting], answer: Behaviour, repeat: int, runner: Runner) -> tuple[Tally, ...]:
    """Try everything round by round, so that a machine that changes under way shows in every trial and not in one.

    Progress is shown on stderr.

    :raises InputError: the topology cannot run one of the cases.
    :raises MachineError: the machine ran out of something on the way.
    """
    with _Progress(len(settings) * repeat, repeat) as progress:
        batch = _Batch(answer, runner, progress, {setting.trial: Tally(setting.trial) for setting in settings})
        try:
            for _round, (number, setting) in itertools.product(range(repeat), enumerate(settings)):
                await batch.start(number, setting)
            await batch.leave(0)
        finally:
            await batch.give_up()
    return tuple(batch.tallies.values())


class _UnderWay(NamedTuple):
    setting: Setting
    task: asyncio.Task[Attempt]


class _Batch:
    """Trials under way, and the tallies of those that are over. A slow case has the machine for itself."""

    def __init__(self, answer: Behaviour, runner: Runner, progress: _Progress, tallies: dict[Trial, Tally]) -> None:
        self._answer = answer
        self._runner = runner
        self._progress = progress
        self.tallies = tallies
        self._under_way: deque[_UnderWay] = deque()
        self._given: dict[Any, Any] = {}  # warnings

    async def start(self, number: int, setting: Setting) -> None:
        """Start a trial as soon as there is room, unless it is known already that it cannot be run."""
        alone = setting.case.slow or (bool(self._under_way) and self._under_way[-1].setting.case.slow)
        await self.leave(0 if alone else self._runner.room - 1)
        tally = self.tallies[setting.trial]
        if tally.failure or tally.missing:
            self._progress.advance()
            return
        self._progress.tell(setting)
        self._under_way.append(_UnderWay(setting, asyncio.create_task(self._runner.run(number, self._answer))))

    async def leave(self, most: int) -> None:
        """Wait until no more than so many trials are under way, and add up those that are over, in their order."""
        while len(running := [one.task for one in self._under_way if not one.task.done()]) > most:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        while self._under_way and self._under_way[0].task.done():
            setting, task = self._under_way.popleft()
            self._add(setting.trial, task.result())

    def _add(self, trial: Trial, came: Attempt) -> None:
        for warned in came.warned:
            warned.give(self._given)
        if came.fault:
            print(came.fault, end="", file=sys.stderr)
        self.tallies[trial] = came.added_to(self.tallies[trial])
        self._progress.advance()

    async def give_up(self) -> None:
        """Cancel what is still under way."""
        for one in self._under_way:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in self._under_way), return_exceptions=True)


class _Progress:
    """How far a batch has come: a bar on a terminal, elsewhere one line about how long many rounds will take."""

    def __init__(self, total: int, repeat: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        shown = cursor.moves(2)
        self._bar = Progress(console=Console(stderr=True), transient=True, disable=not shown)
        self._task = self._bar.add_task("", total=total)
        self._total, self._done, self._begun = total, 0, time.monotonic()
        self._untold = repeat > 1 and not shown

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._bar.stop()

    def tell(self, setting: Setting) -> None:
        """Report what is tried now."""
        self._bar.update(self._task, description=f"{setting.case.name} with {setting.fix.name}")

    def advance(self) -> None:
        """Report that one more trial is over."""
        self._bar.advance(self._task)
        self._done += 1
        took = time.monotonic() - self._begun
        if self._untold and took > _SAMPLE:
            self._untold = False
            estimate = took / self._done * self._total
            if estimate > _SOON:
                print(f"lab: {self._total} trials, about {_duration(estimate)}", file=sys.stderr)


def _duration(seconds: float) -> str:
    """Return a duration to two digits at most."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} s"
