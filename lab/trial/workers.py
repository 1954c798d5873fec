# SPDX-License-Identifier: MIT
"""Trials side by side: processes that each run one trial at a time, forked from one that knows all of them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import sys
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from lab.conntrack.netlink import of_pyroute2
from lab.errors import INTERRUPTED, MachineError
from lab.netns import interrupt
from lab.netns.syscalls import die_with_parent
from lab.trial.attempt import Attempt, attempt
from lab.trial.shared import SharedLabs
from lab.wire.scapy_import import import_scapy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

    from lab.trial.setting import Setting
    from lab.vocabulary import Behaviour

#: Fewer trials for each worker are over before it has paid for itself.
LEAST: Final = 8
_PATIENCE: Final = 10.0  # seconds, for a worker to close what it has open


class Runner(Protocol):
    """What runs the trials of a batch.

    :param room: how many at a time.
    """

    @property
    def room(self) -> int:
        """How many trials it runs at a time."""
        ...

    async def run(self, number: int, answer: Behaviour) -> Attempt:
        """Run the trial of this number in the batch."""
        ...


class InThisProcess:
    """Runs one trial after the other where the batch is, in labs that they share where they may.

    :param labs: to be shared with other batches, by whoever closes them; its own where None.
    """

    room = 1

    def __init__(self, settings: Sequence[Setting], labs: SharedLabs | None = None) -> None:
        self._settings = settings
        self._is_own = labs is None
        self._labs = labs or SharedLabs()

    async def run(self, number: int, answer: Behaviour) -> Attempt:
        """Run a trial."""
        return await attempt(self._settings[number], answer, self._labs.run)

    def close(self) -> None:
        """End the lab that there is, unless others share it."""
        if self._is_own:
            self._labs.close()


class WorkerError(MachineError):
    """A worker has ended before its trial had: killed, by want of memory or by somebody."""


class _Worker:
    """A process that runs the trials that it is asked for, until nobody can ask it any more."""

    def __init__(self, settings: Sequence[Setting], others: Sequence[_Worker]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        mine = [self.connection, *(other.connection for other in others)]
        self.process = context.Process(target=_serve, args=(theirs, settings, mine, os.getpid()))
        try:
            self.process.start()
        except OSError:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """Close its connection: it ends, for nobody can ask it any more; what still runs there is interrupted."""
        self.connection.close()
        self.process.join(_PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.process.close()

    def interrupt(self) -> None:
        """Have it give up its trial and close what it has open, as by Ctrl-C."""
        if self.process.exitcode is None and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGINT)

    async def ask(self, number: int, answer: Behaviour) -> Attempt:
        """Have it run a trial.

        :raises WorkerError: it has ended instead.
        """
        try:
            self.connection.send((number, answer))
            await _readable(self.connection)
            came = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(_PATIENCE)
            raise WorkerError(f"a worker ended {_how(self.process.exitcode)}") from None
        if isinstance(came, Exception):
            raise came
        assert isinstance(came, Attempt)
        return came


class Workers:
    """Runs trials in several processes; each is asked by one task at a time."""

    def __init__(self, settings: Sequence[Setting], workers: Sequence[_Worker]) -> None:
        self.room = len(workers)
        self._settings = settings
        self._idle = list(workers)

    async def run(self, number: int, answer: Behaviour) -> Attempt:
        """Run a trial. There have to be fewer under way than there is room.

        :raises WorkerError: the worker has ended instead; says in which trial.
        """
        worker = self._idle.pop()
        try:
            came = await worker.ask(number, answer)
        except WorkerError as error:
            trial = self._settings[number]
            words = f"{error.what} while it ran {trial.case.name} with {trial.fix.name}"
            raise WorkerError(words, "memory, perhaps; --jobs 1 runs all in one process") from None
        self._idle.append(worker)
        return came


def processors() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0))


@contextmanager
def started(settings: Sequence[Setting], count: int, jobs: int, labs: SharedLabs | None = None) -> Iterator[Runner]:
    """Start as many processes as are worth it, and end them with the block: what runs then, is interrupted.

    Trials that share a lab stay together in this one: a lab that takes long is built once.

    To be called before there is an event loop or a second thread, neither of which a fork takes along whole.

    :param count: how many trials will be run.
    :param jobs: how many at a time, at most.
    :param labs: where trials that share a lab have it from, with others before and after them.
    """
    sharing = any(node.given for setting in settings for node in setting.topology.nodes)
    room = 1 if sharing else min(jobs, count // LEAST)
    if room < 2:
        with closing(InThisProcess(settings, labs)) as runner:
            yield runner
        return
    import_scapy()  # once for all
    of_pyroute2()
    gc.freeze()  # or a worker's first collection would copy every page
    workers: list[_Worker] = []
    with ExitStack() as stack:
        for _number in range(room):
            workers.append(_Worker(settings, workers))
            stack.callback(workers[-1].close)
        try:
            yield Workers(settings, workers)
        except BaseException:
            for worker in workers:
                worker.interrupt()
            raise


def _serve(
    connection: Connection[Any, Any],
    settings: Sequence[Setting],
    of_parent: Sequence[Connection[Any, Any]],
    parent: int,
) -> None:
    """Run what is asked for, in a worker, until the other end is closed."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, _interrupted)
    for one in of_parent:  # or it would never see them closed
        one.close()
    while True:
        try:
            number, answer = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            came: Attempt | Exception = asyncio.run(_cancelled_by_interrupt(settings[number], answer))
        except (asyncio.CancelledError, KeyboardInterrupt):  # the latter from interrupt.ends_waiting()
            sys.exit(INTERRUPTED)
        except Exception as error:  # the parent raises it, as if it had run the trial itself
            came = error
        try:
            connection.send_bytes(pickle.dumps(came))
        except ConnectionError:
            return


async def _cancelled_by_interrupt(setting: Setting, answer: Behaviour) -> Attempt:
    with interrupt.cancels_task():
        return await attempt(setting, answer)


def _interrupted(_signal: int, _frame: object) -> NoReturn:
    sys.exit(INTERRUPTED)


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"by {signal.Signals(-exit_code).name}"
    return f"with exit code {exit_code}"


async def _readable(connection: Connection[Any, Any]) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(connection.fileno(), ready)
    try:
        await future
    finally:
        loop.remove_reader(connection.fileno())
