# SPDX-License-Identifier: MIT
"""The window check for the packets that are the most and the plainest: one ACK after the other, and all of them fine.

What :class:`lab.evidence.window.Tracker` makes of them, in numbers that change in place; whatever is not plainly fine
is left to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.evidence.window import SideWindow, Tracker

_HALF: Final = 1 << 31
_MASK: Final = (1 << 32) - 1
_LEAST_ACK_WINDOW: Final = 66000  # MAXACKWINCONST, nf_conntrack_proto_tcp.c


@dataclass(slots=True)
class QuickSide:
    """What the kernel keeps of one side: :class:`lab.evidence.window.SideWindow`, to be changed in place."""

    end: int
    limit: int
    window: int
    scale: int


def _side(window: SideWindow) -> QuickSide:
    return QuickSide(window.end, window.limit, window.window, window.scale)


class QuickWindow:
    """The numbers of both sides of a connection that is established.

    :param tracker: has seen both sides.
    """

    __slots__ = ("_tracker", "client", "server")

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.client, self.server = _side(tracker.original), _side(tracker.reply)

    @property
    def tracker(self) -> Tracker:
        """What the kernel knows by now."""
        original, reply = (
            replace(window, end=side.end, limit=side.limit, window=side.window)
            for window, side in ((self._tracker.original, self.client), (self._tracker.reply, self.server))
        )
        return replace(self._tracker, original=original, reply=reply)

    def accepts(self, sequence: int, length: int, acknowledgement: int, window: int, *, from_client: bool) -> bool:
        """Check whether a segment without flags but ACK and PSH is in the window, and take it into account if it is.

        :param window: as sent, not scaled.
        """
        sides = (self.client, self.server) if from_client else (self.server, self.client)
        return accepts(*sides, sequence, length, acknowledgement, window)


def accepts(
    sender: QuickSide, receiver: QuickSide, sequence: int, length: int, acknowledgement: int, window: int
) -> bool:
    """Check whether a segment without flags but ACK and PSH is in the window, and take it into account if it is.

    :param window: as sent, not scaled.
    """
    end = sequence + length
    least = sender.window if sender.window > _LEAST_ACK_WINDOW else _LEAST_ACK_WINDOW
    # Each is a distance in sequence space, as lab.evidence.follow has it, without the call.
    if (
        (sequence - sender.limit + _HALF & _MASK) > _HALF
        or (acknowledgement - receiver.end + _HALF & _MASK) > _HALF
        or (sender.end - receiver.window - end + _HALF & _MASK) > _HALF
        or (receiver.end - least - acknowledgement + _HALF & _MASK) > _HALF
    ):
        return False
    offered = window << sender.scale
    if (end - sender.end + _HALF & _MASK) > _HALF:
        sender.end = end & _MASK
    if offered > sender.window:  # noqa: PLR1730 - no call: this is run once a packet
        sender.window = offered
    beyond = (end - sender.limit + _HALF & _MASK) - _HALF
    if beyond > 0:
        receiver.window += beyond
    granted = acknowledgement + offered
    if (granted - receiver.limit + _HALF & _MASK) >= _HALF:
        receiver.limit = granted + (0 if window else 1) & _MASK
    return True
