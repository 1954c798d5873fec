# SPDX-License-Identifier: MIT
"""One processor for a thread whose packets are to keep their order."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread on the processor it is on: its packets then share one queue and keep their order.

    Blocks may overlap: who comes later stays on the same one, and the last to leave sets the thread free.
    """
    if not _kept.blocks:
        _kept.allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {ctypes.CDLL(None).sched_getcpu()})
    _kept.blocks += 1
    try:
        yield
    finally:
        _kept.blocks -= 1
        if not _kept.blocks:
            os.sched_setaffinity(0, _kept.allowed)


def visit_all_processors() -> None:
    """Have this thread run on each processor that it may use, and come back.

    A packet that one of them was taking through a namespace is through it then: that is done in a softirq, in which no
    thread of that processor runs (but for kernels with PREEMPT_RT).
    """
    here = os.sched_getaffinity(0)
    try:
        for one in sorted(_kept.allowed if _kept.blocks else here):
            os.sched_setaffinity(0, {one})
    finally:
        os.sched_setaffinity(0, here)


class _Kept(threading.local):
    """How many blocks keep this thread on a processor, and where it may run otherwise."""

    blocks = 0
    allowed: AbstractSet[int] = frozenset()


_kept: Final = _Kept()
