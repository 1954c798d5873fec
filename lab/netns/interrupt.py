# SPDX-License-Identifier: MIT
"""Ctrl-C, for whoever runs an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def cancels_task() -> Iterator[None]:
    """Have Ctrl-C cancel the running task, for as long as the block lasts.

    It comes between two steps of the task and not within one, so that whatever a step has opened is closed. And a loop
    that waits for descriptors never misses it, while a thread that waits for a lock may.
    """
    task, before = asyncio.current_task(), signal.getsignal(signal.SIGINT)
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
