# SPDX-License-Identifier: MIT
"""The same trials on several kernels at a time: each handed to an executor, and what comes back merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from lab import __version__
from lab.errors import InputError, LabError, MissingError
from lab.kernels import Cache, Image, Kernel, make_image, resolve
from lab.kernels.on_kernel import RUNNING, Trials, failed, here, in_guest
from lab.netns import interrupt
from lab.results.matrix import Column, Matrix, joined, merge

#: Told which kernel is at what, from any thread.
Say = Callable[[str, str], None]


class Guests(Protocol):
    """Where guests run."""

    def submit(self, kernel: Kernel, image: Image, trials: Trials) -> Future[Column]:
        """Have a kernel booted and the trials run there."""
        ...


class ThisMachine:
    """Threads that each wait for one kernel at a time, and give up together.

    :param jobs: how many kernels at a time.
    """

    def __init__(self, jobs: int) -> None:
        self.room = jobs
        self._executor = ThreadPoolExecutor(jobs)
        self._running: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[Column]]] = set()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        if kind is not None:
            self._ended = True
            for loop, task in self._running.copy():
                loop.call_soon_threadsafe(task.cancel)
        self._executor.shutdown(cancel_futures=True)

    def submit(self, kernel: Kernel, image: Image, trials: Trials) -> Future[Column]:
        """Have a kernel booted and the trials run there."""
        return self.run(partial(in_guest, kernel, image, trials))

    def run(self, attempt: Callable[[], Coroutine[Any, Any, Column]]) -> Future[Column]:
        """Run a coroutine in a thread and a loop of its own."""
        return self._executor.submit(lambda: asyncio.run(self._until_the_end(attempt)))

    async def _until_the_end(self, attempt: Callable[[], Coroutine[Any, Any, Column]]) -> Column:
        task = asyncio.create_task(attempt())
        itself = (asyncio.get_running_loop(), task)
        self._running.add(itself)
        if self._ended:
            task.cancel()
        try:
            return await task
        finally:
            self._running.discard(itself)


def run(
    names: Sequence[str], trials: Trials, machine: ThisMachine, guests: Guests, say: Say, *, shares: int = 1
) -> Matrix:
    """Run the trials on every kernel; one that goes wrong is a column that says so, and the others go on.

    :param names: :data:`lab.kernels.on_kernel.RUNNING`, or what :func:`lab.kernels.resolve` takes.
    :param machine: where the trials on this machine's own kernel run.
    :param guests: where the others run.
    :param shares: over how many guests the cases of a kernel are shared out.
    :raises InputError: there is no such kernel; then nothing was booted.
    :raises MissingError: nothing can be booted here.
    :raises CancelledError: by Ctrl-C.
    """
    cache = Cache.default()
    kernels = {name: _resolved(name, cache) for name in names if name != RUNNING}
    futures = {name: _start(kernels.get(name), trials, shares, cache, machine, guests, say) for name in names}
    return merge(__version__, asyncio.run(_all(futures, trials.cases, say)))


def _resolved(name: str, cache: Cache) -> Kernel | Column:
    """Return the kernel of a name, or its column where it cannot be fetched."""
    try:
        return resolve(name, cache)
    except (InputError, MissingError):
        raise
    except LabError as error:
        return Column(name, "", "", failure=str(error))


async def _all(futures: Mapping[str, Sequence[Future[Column]]], cases: Sequence[str], say: Say) -> list[Column]:
    """Wait for all; Ctrl-C cancels it."""
    with interrupt.cancels_task():
        return await asyncio.gather(*(_column(name, shares, cases, say) for name, shares in futures.items()))


async def _column(name: str, shares: Sequence[Future[Column]], cases: Sequence[str], say: Say) -> Column:
    column = joined(await asyncio.gather(*map(asyncio.wrap_future, shares)), cases)
    if column.report is None:
        told = column.failure
    else:
        had = [tally for tally in column.report.tallies if not tally.missing]
        told = f"{sum(tally.good for tally in had)} of {len(had)} trials as expected"
    say(name, f"{told}, after {column.seconds:.0f} s")
    return column


def _start(
    kernel: Kernel | Column | None,
    trials: Trials,
    shares: int,
    cache: Cache,
    machine: ThisMachine,
    guests: Guests,
    say: Say,
) -> list[Future[Column]]:
    if kernel is None:
        # In one piece: the command itself runs them side by side.
        say(RUNNING, "runs the trials on this machine")
        return [machine.run(partial(here, trials))]
    if isinstance(kernel, Column):
        return [_known(kernel)]
    try:
        image = make_image(kernel, cache)
    except MissingError:
        raise
    except LabError as error:
        return [_known(failed(kernel, error))]
    say(kernel.name, f"Linux {kernel.release} is ready to boot")
    return [guests.submit(kernel, image, share) for share in trials.shares(shares)]


def _known(column: Column) -> Future[Column]:
    future: Future[Column] = Future()
    future.set_result(column)
    return future
