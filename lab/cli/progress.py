# SPDX-License-Identifier: MIT
"""How far the reading of long files has come, and how long it will still take."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Callable
from typing import Any, Final

_FIRST: Final = 1.0  # seconds; what takes less is over before anybody has read it
_EACH: Final = 0.3  # seconds between two words


class Progress:
    """Says how much of some files was read.

    :param say: is told, in words.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + _FIRST
        self._read = self._size = 0
        self._is_known = True

    def expect(self, size: int | None) -> None:
        """Take another file into account; None where nobody knows how long it is."""
        if size is None:
            self._is_known = False
        else:
            self._size += size

    def add(self, count: int) -> None:
        """Take it that so many more bytes were read."""
        self._read += count
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _EACH
        if not self._is_known or self._read > self._size:
            self._say(f"{self._read / 1e6:,.0f} MB read")
            return
        left = (now - self._begun) * (self._size - self._read) / self._read
        share = f"{self._read * 100 // self._size}% of {self._size / 1e6:,.0f} MB read"
        self._say(f"{share}, about {_duration(left)} left")


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


class Told(io.FileIO):
    """A file that tells how much of it is read."""

    _progress: Progress | None = None

    def tell_to(self, progress: Progress) -> None:
        """Tell it from now on."""
        self._progress = progress
        about = os.fstat(self.fileno())
        progress.expect(about.st_size if stat.S_ISREG(about.st_mode) else None)

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - whatever takes bytes
        """Read into a buffer, and tell how much."""
        count = super().readinto(buffer)
        if count and self._progress is not None:
            self._progress.add(count)
        return count
