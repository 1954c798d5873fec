# SPDX-License-Identifier: MIT
"""Packets of one kind, of which there may be as many as a capture has: what was sent again, and closed windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from lab.capture.explanation import Place
from lab.capture.naming import Naming
from lab.evidence.follow import distance
from lab.evidence.packet import RST, SYN, Packet

SHOWN: Final = 5  # packets of one kind


@dataclass(slots=True)
class Several:
    """Packets of one side and one kind: all are counted, and the first are kept.

    :ivar furthest: the number behind the last byte that any of them carries; None where there is none of them.
    """

    count: int = 0
    first: list[Place] = field(default_factory=list)
    furthest: int | None = None

    def add(self, place: Place, end: int) -> None:
        """Take one more into account.

        :param end: the number behind its last byte.
        """
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(place)
        if self.furthest is None or distance(self.furthest, end) > 0:
            self.furthest = end

    def join(self, other: Several) -> None:
        """Take others of the same kind into account."""
        self.count += other.count
        self.first = sorted((*self.first, *other.first), key=lambda place: place.time)[:SHOWN]
        if self.furthest is None or (other.furthest is not None and distance(self.furthest, other.furthest) > 0):
            self.furthest = other.furthest

    def numbers(self, named: Naming) -> str:
        """Return the numbers of the first ones, in words."""
        return named.all(self.first, more=self.count > len(self.first))


class Repeats:
    """What was sent again, and what says that nothing more is taken, by side: True is the client's."""

    def __init__(self) -> None:
        self.again: dict[bool, Several] = defaultdict(Several)
        self.closed_window: dict[bool, Several] = defaultdict(Several)

    def take(self, packet: Packet, place: Place, sent: int | None, *, from_client: bool) -> bool:
        """Take a packet into account, and return whether it was sent again.

        :param sent: the number behind the last byte that its side sent before; None where it sent nothing.
        """
        tcp, length = packet.tcp, packet.payload_length
        assert tcp is not None
        opens = tcp.flags & SYN
        if (not length and not opens and tcp.window) or tcp.flags & RST or sent is None:
            return False
        is_probe = length <= 1 and distance(tcp.sequence, sent) == 1 and not opens
        is_again = bool(length or opens) and 0 <= distance(packet.end, sent) < 1 << 20 and not is_probe
        if is_again:
            self.again[from_client].add(place, packet.end)
        if tcp.window == 0 and not opens:
            self.closed_window[from_client].add(place, packet.end)
        return is_again
