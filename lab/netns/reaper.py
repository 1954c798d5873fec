# SPDX-License-Identifier: MIT
"""Closing what is slow to close, off the caller's thread.

Closing a packet socket or an nftables context waits for the kernel's grace period (8 to 15 ms). A lab is over when
its owner says so; the kernel may take its time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final, Protocol

# More would only pile up descriptors; these keep pace with a hundred labs a second.
_under_way: Final = threading.BoundedSemaphore(64)


class Closable(Protocol):
    """Anything with a descriptor to give up.

    It is slow where closing waits for the kernel: a class says so by ``slow_to_close``.
    """

    def close(self) -> None:
        """Close it."""


def close_all(things: Iterable[Closable]) -> None:
    """Close all of them, the slow ones each in a thread of its own.

    A thread each, so that every descriptor leaves the process's table at once. A program that is started while one is
    still waiting its turn would inherit it, be the last to close it, and wait for the kernel before it begins.
    """
    for thing in things:
        if getattr(thing, "slow_to_close", False):
            _under_way.acquire()
            try:
                threading.Thread(target=_close, args=(thing,), name="reaper").start()
            except RuntimeError:  # no more threads may be started (`ulimit -u`, `ulimit -v`)
                _close(thing)
        else:
            thing.close()


def _close(thing: Closable) -> None:
    try:
        thing.close()
    finally:
        _under_way.release()
