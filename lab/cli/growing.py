# SPDX-License-Identifier: MIT
"""A file that grows while something goes on, and has whole pieces in it whatever happens."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self


class Growing:
    """A file, pipe or device that takes pieces: each of them whole or, where that fails, none of it.

    :param place: its path, and what is there is emptied; or the descriptor of one that is open, and stays so.
    :raises OSError: it cannot be opened.
    """

    def __init__(self, place: str | int) -> None:
        is_open = isinstance(place, int)
        self._file = open(place, "wb", buffering=0, closefd=not is_open)  # noqa: SIM115 - closed by whoever has this
        # What `>>` adds to is all before it, and what a shell's other commands wrote to the same `>` as well.
        self._length = os.fstat(self.fileno()).st_size if is_open else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None, /
    ) -> None:
        self._file.close()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._file.fileno()

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def write(self, data: bytes, /) -> int:
        """Write a piece, and return its length.

        :raises OSError: it has no room for the whole piece, or is no longer there; what it had before it still has.
        """
        about = os.fstat(self.fileno())
        if stat.S_ISREG(about.st_mode) and not about.st_nlink:
            raise OSError("it was removed")
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with suppress(OSError):  # of a pipe
                self._file.truncate(self._length)
                self._file.seek(self._length)
            raise
        self._length += len(data)
        return len(data)
