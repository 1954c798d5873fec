# SPDX-License-Identifier: MIT
"""Watching until it is over: by Ctrl-C, after a time, with the lab, or when nobody reads any more."""

from __future__ import annotations

import select
import sys
import time
from enum import Enum
from typing import TYPE_CHECKING, Final

from lab.errors import ReaderGoneError
from lab.standing.live import wakened

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.observed.lines import Seen
    from lab.watch.watch import Watch

_LAST_TURNS: Final = 64  # of reading when it is over, on a host where more and more comes


class End(Enum):
    """Why a watch is over."""

    ASKED = "asked"
    TIME = "time"
    LAB = "lab"


def follow(watch: Watch, say: Callable[[list[Seen]], None], seconds: float | None) -> End:
    """Give on what is seen, until it is over, and return why.

    :param seconds: after which it is; None for never.
    :raises ReaderGoneError: whoever reads standard output has gone.
    """
    with wakened() as wakeup:
        poll = select.poll()
        for descriptor in (wakeup, *watch.filenos(), *(() if watch.owner is None else (watch.owner,))):
            poll.register(descriptor, select.POLLIN)
        poll.register(1, 0)  # of a pipe without a reader the kernel says POLLERR unasked
        while True:
            left = None if seconds is None else seconds - watch.seconds
            patience = watch.patience if left is None else max(0.0, min(watch.patience, left))
            ready = dict(poll.poll(patience * 1000))
            if ready.get(1, 0) & (select.POLLERR | select.POLLHUP):
                raise ReaderGoneError
            end = _end(watch, wakeup, ready, left)
            _give(watch, say, everything=end is not None)
            if end is not None:
                return end


def _end(watch: Watch, wakeup: int, ready: dict[int, int], left: float | None) -> End | None:
    if watch.owner in ready:
        return End.LAB
    if wakeup in ready:
        return End.ASKED
    return End.TIME if left is not None and left <= 0 else None


def _give(watch: Watch, say: Callable[[list[Seen]], None], *, everything: bool) -> None:
    stop = time.monotonic() + 1.0
    for _turn in range(_LAST_TURNS if everything else 1):
        seen = watch.read(everything=everything)
        say(seen)
        if not seen or time.monotonic() > stop:
            break
    sys.stdout.flush()
