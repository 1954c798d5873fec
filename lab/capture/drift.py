# SPDX-License-Identifier: MIT
"""How the clock of one of several captures went, and what there is to say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lab.capture.clocks import LEAST, SET, Offset

_FASTEST: Final = 1000  # two clocks drift apart by 1 ns in so many at most: MAXFREQ of Linux (500 ppm), either way
_DRIFTED: Final = 1_000_000  # ns; of less nothing is said
_SHOWN: Final = 3  # times that it was set


class Drift:
    """How far a clock was ahead of the first capture's, as far as packets were told."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._last = Offset(0, None)
        self._steps: list[tuple[int, int]] = []
        self._began = self._ended = 0

    def add(self, offset: Offset, number: int, began: int, ended: int) -> None:
        """Take what holds for some packets more.

        :param number: of the first of them, and its time: ``began``; ``ended``: the last one's; in nanoseconds.
        """
        if offset.ahead is None:
            return
        if self._first is None:
            self._first, self._began = offset.ahead, began
        elif self._is_step(offset, began - self._ended):
            self._steps.append((number, offset.ahead - (self._last.ahead or 0)))
        if offset.bounds is not None or self._last.bounds is None:
            self._last, self._ended = offset, ended

    def _is_step(self, offset: Offset, within: int) -> bool:
        """Check whether a clock was set: no drift takes it from where it was to where it is.

        :param within: in what time, in nanoseconds.
        """
        was, now = self._last.bounds, offset.bounds
        if was is None or now is None:
            return abs((offset.ahead or 0) - (self._last.ahead or 0)) >= LEAST
        return max(now[0] - was[1], was[0] - now[1]) >= SET + abs(within) // _FASTEST

    def _drifted(self) -> int:
        """Return by how much it has gone ahead, beside the steps; 0 where it need not have."""
        if self._first is None or self._last.bounds is None:
            return 0
        low, high = self._last.bounds
        without = self._first + sum(by for _number, by in self._steps)
        by = (self._last.ahead or 0) - without
        return 0 if low <= without <= high or abs(by) < _DRIFTED else by

    def told(self, name: str, first: str) -> Iterator[str]:
        """Yield what whoever reads on has to know of it, in sentences.

        :param name: of its file, and ``first``: of the one by whose clock all are told.
        """
        if self._first is None:
            yield f"{name}: shares no packet with {first}: not put onto its clock, the times are taken as they are"
            return
        drifted = self._drifted()
        if self._first or drifted:
            words = f"{name}: its clock is {_state(self._first, first)}, by the packets that both have"
            if drifted:
                rate = abs(drifted) * 1e6 / max(self._ended - self._began, 1)
                words += (
                    f"; it goes {'fast' if drifted > 0 else 'slow'} against that by {_duration(abs(drifted))} in all"
                    f" ({rate:,.0f} ppm), which is followed"
                )
            yield words
        for number, by in self._steps[:_SHOWN]:
            which = "it was set" if name == first else f"this one or that of {first} was set"
            yield (
                f"{name}: from packet {number:,} on its clock is {_duration(abs(by))} further"
                f" {'ahead' if by > 0 else 'behind'}: {which}. The packets are put in their order all the same; times"
                " between before and after are wrong by so much at most"
            )
        if len(self._steps) > _SHOWN:
            yield f"{name}: {len(self._steps) - _SHOWN:,} times more its clock or that of {first} was set"


def _state(ahead: int, other: str) -> str:
    if not ahead:
        return f"that of {other} at first"
    return f"{_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of {other}"


def _duration(nanoseconds: int) -> str:
    for unit, name in ((10**9, "s"), (10**6, "ms")):
        if nanoseconds >= unit:
            return f"{nanoseconds / unit:,.3f} {name}"
    return f"{nanoseconds / 1000:,.1f} us"
