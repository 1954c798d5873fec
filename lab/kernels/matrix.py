"""The same trials on several kernels at a time: each handed to an executor, and what comes back merged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from lab import __version__
from lab.errors import InputError, LabError, MissingError
from lab.kernels import Cache, Image, Kernel, make_image, resolve
from lab.kernels.trials import RUNNING, Trials, failed, here, in_guest
from lab.matrix import Column, Matrix, merge

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


def run(names: Sequence[str], trials: Trials, machine: ThisMachine, guests: Guests, say: Say) -> Matrix:
    """Run the trials on every kernel; one that goes wrong is a column that says so, and the others go on.

    :param names: :data:`lab.kernels.trials.RUNNING`, or what :func:`lab.kernels.resolve` takes.
    :param machine: where the trials on this machine's own kernel run.
    :param guests: where the others run.
    :raises InputError: there is no such kernel; then nothing was booted.
    :raises MissingError: nothing can be booted here.
    :raises CancelledError: by Ctrl-C.
    """
    cache = Cache.default()
    kernels = {name: _resolved(name, cache) for name in names if name != RUNNING}
    columns = []
    for name in names:
        future = _start(kernels.get(name), trials, cache, machine, guests, say)
        future.add_done_callback(partial(_done, name, say))
        columns.append(future)
    return merge(__version__, asyncio.run(_all(columns)))


def _resolved(name: str, cache: Cache) -> Kernel | Column:
    """Return the kernel of a name, or its column where it cannot be fetched."""
    try:
        return resolve(name, cache)
    except (InputError, MissingError):
        raise
    except LabError as error:
        return Column(name, "", "", failure=str(error))


async def _all(futures: Sequence[Future[Column]]) -> list[Column]:
    """Wait for all; Ctrl-C cancels it.

    A thread that waits for a lock may miss a signal that came just before; a loop that waits for descriptors does not.
    """
    itself, before = asyncio.current_task(), signal.getsignal(signal.SIGINT)
    assert itself is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, itself.cancel)
    try:
        return [await asyncio.wrap_future(future) for future in futures]
    finally:
        signal.signal(signal.SIGINT, before)


def _start(
    kernel: Kernel | Column | None, trials: Trials, cache: Cache, machine: ThisMachine, guests: Guests, say: Say
) -> Future[Column]:
    if kernel is None:
        say(RUNNING, "runs the trials on this machine")
        return machine.run(partial(here, trials))
    if isinstance(kernel, Column):
        return _known(kernel)
    try:
        image = make_image(kernel, cache)
    except MissingError:
        raise
    except LabError as error:
        return _known(failed(kernel, error))
    say(kernel.name, f"Linux {kernel.release} is ready to boot")
    return guests.submit(kernel, image, trials)


def _known(column: Column) -> Future[Column]:
    future: Future[Column] = Future()
    future.set_result(column)
    return future


def _done(name: str, say: Say, future: Future[Column]) -> None:
    if future.cancelled() or future.exception() is not None:
        return
    column = future.result()
    if column.report is None:
        told = column.failure
    else:
        had = [tally for tally in column.report.tallies if not tally.missing]
        told = f"{sum(tally.good for tally in had)} of {len(had)} trials as expected"
    say(name, f"{told}, after {column.seconds:.0f} s")
