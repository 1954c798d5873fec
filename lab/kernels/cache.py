# SPDX-License-Identifier: MIT
"""The directory in which kernels and images are kept: what is in it is whole, however its making ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.errors import LabError

#: Says where the cache is, instead of the user's own cache directory.
VARIABLE: Final = "LAB_KERNELS_CACHE"


def say(text: str) -> None:
    """Print to the user what takes its time."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Cache:
    """A directory of things that were costly to make or fetch; it may be removed at any time.

    :param directory: is made when something is put into it.
    """

    directory: Path

    @classmethod
    def default(cls) -> Cache:
        """Return the one that ``LAB_KERNELS_CACHE`` names, else the user's own (XDG Base Directory Specification)."""
        if chosen := os.environ.get(VARIABLE):
            return cls(Path(chosen).absolute())
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(base) / "kube-proxy-lab" / "kernels")

    def make(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file or directory ``name``, making it first where it is not there yet.

        It is made aside and renamed when it is whole, so a maker that was killed leaves nothing that looks finished.
        Of several that want it at once one makes it, and the others wait.

        :param make: makes it at the path that it is given.
        :raises LabError: the directory cannot be written, or the disk is full.
        """
        path = self.directory / name
        if path.exists():
            return path
        with self.locked(name):
            if not path.exists():
                aside = path.with_name(f"{path.name}.new")
                _remove(aside)  # of a maker that was killed
                try:
                    make(aside)
                    aside.rename(path)
                except OSError as error:
                    raise LabError(f"cannot make {path}: {error.strerror}") from None
                finally:
                    _remove(aside)
        return path

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Lock that name for the length of the block; the kernel drops it with the process.

        :raises LabError: the directory cannot be written.
        """
        path = self.directory / "locks" / name.replace("/", "-")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            (self.directory / name).parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            told = f"cannot write to the cache {self.directory}: {error.strerror}"
            raise LabError(f"{told} ({VARIABLE} names another)") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that is busy with {name}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
