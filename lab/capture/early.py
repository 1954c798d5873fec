# SPDX-License-Identifier: MIT
"""Answers that came untranslated to where the client asks, before anything was seen translated back there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from lab.capture.explanation import Place, Point
from lab.capture.frames import Frame
from lab.capture.link import BEHIND_ETHERNET
from lab.evidence.packet import SYN

if TYPE_CHECKING:
    from lab.capture.connection import Segment
    from lab.capture.lane import Stream

_KEPT: Final = 20


class Early:
    """Keeps such answers until the end tells whether they had to be translated there."""

    def __init__(self) -> None:
        self._kept: list[tuple[Segment, Stream, Place, bytes]] = []
        self._askers: dict[Stream, bytes] = {}

    def asks(self, stream: Stream, frame: Frame) -> None:
        """Take it that the client asks at a point, where no answer came yet."""
        self._askers.setdefault(stream, _link_end(frame, 6))

    def add(self, segment: Segment, stream: Stream, place: Place, frame: Frame) -> None:
        """Take it that an answer came untranslated to where the client asks."""
        if len(self._kept) < _KEPT:
            self._kept.append((segment, stream, place, _link_end(frame, 0)))

    def leaks(self, translated: Collection[Point], resets: Collection[Segment]) -> Iterator[tuple[Segment, Place]]:
        """Yield the answers that leaked, and where.

        :param translated: the points at which packets were seen translated.
        :param resets: the connection's.
        """
        for segment, stream, place, receiver in self._kept:
            is_client_s = stream[2] is not None or stream[:2] not in translated
            if segment.leaked is None and (is_client_s or self._is_at_client(segment, stream, receiver, resets)):
                yield segment, place

    def _is_at_client(self, segment: Segment, stream: Stream, receiver: bytes, resets: Collection[Segment]) -> bool:
        """Check whether an answer to the SYN came to the client, at a point that shows packets in both forms.

        As where a bridge floods a copy of the translated SYN. It did if the frame is for the client by its link's
        address, or if the client answers with a RST.
        """
        tcp = segment.packet.tcp
        assert tcp is not None
        if segment.translated or not segment.opening or not tcp.flags & SYN:
            return False
        if receiver and receiver == self._askers.get(stream):
            return True
        numbers = (one.packet.tcp.sequence for one in resets if one.direct and one.packet.tcp is not None)
        return tcp.acknowledgement in numbers


def _link_end(frame: Frame, at: int) -> bytes:
    """Return an address of an Ethernet frame: its receiver's at byte 0, its sender's at 6; none of other links."""
    return frame.data[at : at + 6] if frame.at in BEHIND_ETHERNET and frame.outgoing is None else b""
