"""Closing what is slow to close, off the caller's thread.

Closing a packet socket or an nftables context waits for the kernel's grace period (8 to 15 ms each). A lab
is over when its owner says so; the kernel may take its time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Protocol

# Labs whose end is still under way; more would only pile up descriptors. Eight keep pace with 1,000 trials a minute.
_under_way: Final = threading.BoundedSemaphore(8)


class Closable(Protocol):
    """Anything with a descriptor to give up."""

    def close(self) -> None:
        """Give it up."""


def close_later(things: Sequence[Closable]) -> None:
    """Close all of them in their order, in a thread of their own. Waits only where too much is left to close."""
    _under_way.acquire()
    threading.Thread(target=_close, args=(things,), name="reaper").start()


def _close(things: Sequence[Closable]) -> None:
    try:
        for thing in things:
            thing.close()
    finally:
        _under_way.release()
