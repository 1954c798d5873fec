# SPDX-License-Identifier: MIT
"""Ctrl-C, for whoever runs an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
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


@contextlib.contextmanager
def ends_waiting() -> Iterator[None]:
    """Have Ctrl-C raise KeyboardInterrupt at once in a block that only waits, whatever it does otherwise.

    Another thread than the main one never hears of it; who ignores Ctrl-C goes on to do so.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
