# SPDX-License-Identifier: MIT
"""On a Dask scheduler: files by the hash of their content, put there by clients and taken by workers.

Clients and workers reach the scheduler and need not reach each other. The depot is sent there with its code, so the
scheduler needs no lab.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from distributed.diagnostics.plugin import SchedulerPlugin

if TYPE_CHECKING:
    from distributed import Scheduler


class Depot(SchedulerPlugin):  # type: ignore[misc]
    """Keeps the files in a directory of its own for as long as the scheduler lives."""

    name = "lab-depot"
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Answer to clients and workers from now on."""
        self._directory = tempfile.TemporaryDirectory(prefix="lab-depot-")
        scheduler.handlers.update(lab_depot_has=self.has, lab_depot_put=self.put, lab_depot_take=self.take)

    async def close(self) -> None:
        """Remove the files."""
        self._directory.cleanup()

    def has(self, digest: str) -> bool:
        """Report whether a file is here, whole."""
        return self._path(digest).exists()

    def put(self, digest: str, sender: str, piece: bytes, last: bool) -> None:
        """Store the next piece of a file.

        :param sender: whose piece it is: two may send the same file at once.
        """
        aside = self._path(f"{digest}.{sender}")
        with aside.open("ab") as file:
            file.write(piece)
        if last:
            aside.rename(self._path(digest))

    def take(self, digest: str, offset: int, size: int) -> bytes:
        """Return a piece of a file; empty after its end."""
        with self._path(digest).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _path(self, name: str) -> Path:
        return Path(self._directory.name, name)
