# SPDX-License-Identifier: MIT
"""Whether a trial was let run: its bounds, conntrack's time-outs and TCP's timers go on while it is not."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_TICK: Final = 0.1  # seconds


class Punctuality:
    """Notes from now on how much later than asked for this process is woken. Must be made inside the running loop.

    What the process itself computes meanwhile does not count: filling a table takes what it takes.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = 0.0
        self._begin()

    def _begin(self) -> None:
        self._used = time.process_time()
        self._due = self._loop.time() + _TICK
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._late = self.late
        self._begin()

    @property
    def late(self) -> float:
        """For how long the process was kept from running so far, in seconds."""
        return self._late + max(0.0, self._loop.time() - self._due - (time.process_time() - self._used))

    def close(self) -> None:
        """Stop noting."""
        self._timer.cancel()
