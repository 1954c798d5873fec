"""Guests on the workers of a Dask cluster: booted from files that come by their content's hash, and again when lost.

A worker needs the same lab and QEMU, and nothing of what kernels and images are made with.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from distributed import Client, KilledWorker, Security, WorkerPlugin, get_worker
from distributed.comm import connect
from distributed.protocol.pickle import cloudpickle
from distributed.utils import sync

from lab import __version__
from lab.errors import InputError, LabError
from lab.kernels import Cache, Image, Kernel, depot
from lab.kernels.trials import Trials, failed, in_guest
from lab.matrix import Column

_PIECE: Final = 4 << 20  # bytes of a file that go over the wire at a time
_PATIENCE: Final = 10.0  # seconds for the scheduler's first answer

# What runs in this process, where it is a worker's, by the scheduler's key for it.
_running: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Task[Column]]] = {}


class Cluster:
    """A Dask cluster, for as long as this client is connected to its scheduler.

    :param address: of the scheduler, such as ``tcp://10.0.0.1:8786``.
    :raises InputError: no scheduler answers there.
    :raises LabError: it has no workers, or one that has another lab.
    """

    def __init__(self, address: str) -> None:
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
            error = future.exception() if not future.cancelled() else None
            if isinstance(error, KilledWorker):
                lost = f"its guest took {error.allowed_failures + 1} workers with it, one after the other"
                found.set_result(failed(kernel, LabError(lost)))
            elif error is not None:
                found.set_exception(error)
            elif not future.cancelled():
                found.set_result(future.result())

        self._executor.submit(_boot, kernel, files, trials).add_done_callback(done)
        return found

    def _check(self) -> None:
        told: dict[str, str] = self.client.run(_lab, on_error="return")
        if not told:
            raise LabError(f"the Dask scheduler at {self.client.scheduler.address} has no workers: dask worker ADDRESS")
        for worker, version in told.items():
            if version != __version__:
                raise LabError(f"the worker at {worker} does not have this lab, {__version__}, but: {version}")

    def offer(self, path: Path) -> str:
        """See that the scheduler has a file, and return the hash of its content."""
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
    """On each worker: ends a guest that nobody waits for any more, as its client has gone or been interrupted."""

    name = "lab-guard"

    def transition(self, key: object, _start: str, finish: str, **_more: object) -> None:
        """See a task change its state."""
        if finish == "cancelled" and (itself := _running.get(str(key))):
            loop, task = itself
            loop.call_soon_threadsafe(task.cancel)


def _lab() -> str:
    """Tell a client which lab a worker has."""
    return __version__


def _boot(kernel: Kernel, files: dict[str, str], trials: Trials) -> Column:
    """On a worker: fetch the files that are not in its cache, and boot the guest."""
    cache = Cache.default()
    image = Image(**{layer: fetched(digest, cache) for layer, digest in files.items()})
    return asyncio.run(_guarded(str(get_worker().get_current_task()), kernel, image, trials))


async def _guarded(key: str, kernel: Kernel, image: Image, trials: Trials) -> Column:
    task = asyncio.create_task(in_guest(kernel, image, trials))
    _running[key] = (asyncio.get_running_loop(), task)
    try:
        return await task
    finally:
        del _running[key]


def fetched(digest: str, cache: Cache) -> Path:
    """Return a file from the worker's cache, fetching it where it is not there yet.

    :raises LabError: what came is not what was asked for.
    """
    worker = get_worker()

    def fetch(path: Path) -> None:
        size = 0
        with path.open("wb") as file:
            while piece := sync(worker.loop, worker.scheduler.lab_depot_take, digest=digest, offset=size, size=_PIECE):
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
