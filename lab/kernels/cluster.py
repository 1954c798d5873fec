# SPDX-License-Identifier: MIT
"""Guests on the workers of a Dask cluster: booted from files that come by their content's hash, and again when lost.

A worker needs the same lab and QEMU, and nothing of what kernels and images are made with.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from distributed import Client, KilledWorker, Reschedule, Security, WorkerPlugin, get_worker
from distributed.comm import connect
from distributed.protocol.pickle import cloudpickle
from distributed.utils import sync

from lab import __version__
from lab.errors import InputError, LabError
from lab.kernels import Cache, Image, Kernel, depot
from lab.kernels.on_kernel import Trials, failed, in_guest
from lab.results.matrix import Column

if TYPE_CHECKING:
    from distributed import Worker

_PIECE: Final = 4 << 20  # bytes of a file that go over the wire at a time
_PATIENCE: Final = 10.0  # seconds for the scheduler's first answer


class Cluster:
    """A Dask cluster, for as long as this client is connected to its scheduler.

    :param address: of the scheduler, such as ``tcp://10.0.0.1:8786``.
    :raises InputError: no scheduler answers there.
    :raises LabError: it has no workers, or one that has another lab.
    """

    def __init__(self, address: str) -> None:
        self._scheduler = f"the Dask scheduler at {address}"
        # What it would say is in the columns, without a traceback.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        try:
            # Before there is a client: one that is never connected takes its time to give up, and complains.
            asyncio.run(_reach(address))
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler at {address}: {error}", cure="such as tcp://10.0.0.1:8786") from None
        self.client = Client(address, set_as_default=False)
        try:
            self._check()
            self.client.register_plugin(_Guard())
            # By value: who reads it there may have no lab.
            cloudpickle.register_pickle_by_value(depot)
            self.client.register_plugin(depot.Depot())
            cloudpickle.unregister_pickle_by_value(depot)
        except BaseException:
            self.client.close()
            raise
        self._executor = self.client.get_executor(pure=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        # Without wanting the results any more: what runs then is ended by the guards.
        self._executor.shutdown(wait=False)
        self.client.close()

    def submit(self, kernel: Kernel, image: Image, trials: Trials) -> Future[Column]:
        """Have a kernel booted by some worker, and by another one where that is lost."""
        files = {layer: self.offer(path) for layer, path in vars(image).items()}
        found: Future[Column] = Future()

        def done(future: Future[Column]) -> None:
            if not found.set_running_or_notify_cancel():
                return  # nobody waits for it any more
            if future.cancelled():
                there = self.client.status == "running"
                lost = f"{self._scheduler} was told to cancel it" if there else f"{self._scheduler} was lost"
                found.set_result(failed(kernel, LabError(lost)))
            elif isinstance(error := future.exception(), KilledWorker):
                lost = f"its guest took {error.allowed_failures + 1} workers with it, one after the other"
                found.set_result(failed(kernel, LabError(lost)))
            elif error is not None:
                found.set_exception(error)
            else:
                found.set_result(future.result())

        self._executor.submit(_boot, kernel, files, trials).add_done_callback(done)
        return found

    @property
    def room(self) -> int:
        """How many guests run at a time, with the workers that there are now."""
        return sum(self.client.nthreads().values())

    def _check(self) -> None:
        told: dict[str, str] = self.client.run(_lab, on_error="return")
        if not told:
            raise LabError(f"{self._scheduler} has no workers: dask worker ADDRESS")
        for worker, version in told.items():
            if version != __version__:
                raise LabError(f"the worker at {worker} does not have this lab, {__version__}, but: {version}")

    def offer(self, path: Path) -> str:
        """Upload a file where the scheduler lacks it, and return the hash of its content."""
        digest = _digest(path)
        scheduler = self.client.scheduler
        if not self.client.sync(scheduler.lab_depot_has, digest=digest):
            sender = uuid.uuid4().hex
            for piece, last in _pieces(path):
                self.client.sync(scheduler.lab_depot_put, digest=digest, sender=sender, piece=piece, last=last)
        return digest


async def _reach(address: str) -> None:
    comm = await connect(address, timeout=_PATIENCE, **Security().get_connection_args("client"))
    await comm.close()


class _Guard(WorkerPlugin):  # type: ignore[misc]
    """On each worker: ends what nobody waits for any more, as its client has gone or been interrupted."""

    name = "lab-guard"
    idempotent = True  # the next client finds this one, and with it what runs

    def setup(self, worker: Worker) -> None:
        """Begin to watch a worker."""
        self._worker = worker
        self._running: dict[str, _Running] = {}

    def transition(self, key: object, start: str, finish: str, **_more: object) -> None:
        """Take note of a task's change of state.

        A thread cannot be stopped. So one that runs and is told to be "released" becomes "cancelled" until its end
        (distributed, ``_transition_executing_released``), and what is told here is the first of these words.
        """
        if start == "executing" and finish == "released" and (itself := self._running.get(str(key))):
            itself.end()

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """End what runs with the worker: its scheduler has gone or somebody ends it, and it would wait for threads."""
        for one in list(self._running.values()):
            one.end()

    @contextmanager
    def watching(self, key: str) -> Iterator[_Running]:
        """Watch over a task, from the thread that runs it."""
        itself = self._running[key] = _Running()
        try:
            # It may have been released before it was known here.
            if self._worker.state.tasks[key].state != "executing":
                itself.end()
            yield itself
        finally:
            del self._running[key]


class _Running:
    """What runs in a thread of a worker's, and can be ended from any other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._guest: tuple[asyncio.AbstractEventLoop, asyncio.Task[Column]] | None = None

    def end(self) -> None:
        """End the guest that there is, or have it never begin."""
        with self._lock:
            self._ended = True
            if self._guest:
                loop, task = self._guest
                loop.call_soon_threadsafe(task.cancel)

    def check(self) -> None:
        """Check that it is to go on.

        :raises Reschedule: it was ended. Who waits for it all the same gets it done again.
        """
        if self._ended:
            raise Reschedule

    async def guest(self, kernel: Kernel, image: Image, trials: Trials) -> Column:
        """Do the same as :func:`in_guest`.

        :raises Reschedule: it was ended.
        """
        task = asyncio.create_task(in_guest(kernel, image, trials))
        with self._lock:
            self._guest = (asyncio.get_running_loop(), task)
        try:
            self.check()
            return await task
        except asyncio.CancelledError:
            raise Reschedule from None
        finally:
            task.cancel()
            with self._lock:
                self._guest = None


def _lab() -> str:
    """Return to a client which lab a worker has."""
    return __version__


def _boot(kernel: Kernel, files: dict[str, str], trials: Trials) -> Column:
    """On a worker: fetch the files that are not in its cache, and boot the guest."""
    cache = Cache.default()
    worker = get_worker()
    guard: _Guard = worker.plugins[_Guard.name]
    with guard.watching(worker.get_current_task()) as running:
        image = Image(**{layer: fetched(digest, cache, running.check) for layer, digest in files.items()})
        return asyncio.run(running.guest(kernel, image, trials))


def fetched(digest: str, cache: Cache, check: Callable[[], None]) -> Path:
    """Return a file from the worker's cache, fetching it where it is not there yet.

    :param check: is called before each piece, and may raise.
    :raises LabError: what came is not what was asked for.
    """
    worker = get_worker()

    def take(offset: int) -> bytes:
        check()
        piece: bytes = sync(worker.loop, worker.scheduler.lab_depot_take, digest=digest, offset=offset, size=_PIECE)
        return piece

    def fetch(path: Path) -> None:
        size = 0
        with path.open("wb") as file:
            while piece := take(size):
                size += file.write(piece)
        if _digest(path) != digest:
            raise LabError(f"the file {digest} came damaged from the scheduler")

    return cache.make(f"artifacts/{digest}", fetch)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(path: Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the pieces of a file, and whether each is the last."""
    with path.open("rb") as file:
        piece = file.read(_PIECE)
        while True:
            following = file.read(_PIECE)
            yield piece, not following
            if not following:
                return
            piece = following
