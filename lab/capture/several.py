# SPDX-License-Identifier: MIT
"""Packets of one kind, of which there may be as many as a capture has: what was sent again, and closed windows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab.capture.explanation import Place
from lab.capture.naming import Naming
from lab.evidence.follow import distance
from lab.evidence.packet import FIN, RST, SYN, Packet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lab.capture.lane import Kept, Lane

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
    """What was sent again, and what says that nothing more is taken, by side: True is the client's.

    :ivar spoke: which side was the last to send data that was new; None where neither did.
    :ivar ended: the sides that sent a FIN.
    :ivar shut: whether the last window that a side told is closed.
    :ivar tries: from which number on a side sent again last, and how often it did so from there in a row.
    """

    def __init__(self) -> None:
        self.spoke: bool | None = None
        self.ended: set[bool] = set()
        self.shut: dict[bool, bool] = {}
        self.tries: dict[bool, tuple[int, int]] = {}
        self._sent: dict[bool, int] = {}
        self.again: dict[bool, Several] = defaultdict(Several)
        self.closed_window: dict[bool, Several] = defaultdict(Several)

    def take(self, packet: Packet, place: Place, sent: int | None, *, from_client: bool) -> bool:
        """Take a packet into account, and return whether it was sent again.

        :param sent: the number behind the last byte that its side sent before; None where it sent nothing.
        """
        tcp, length = packet.tcp, packet.payload_length
        assert tcp is not None
        opens, ends = tcp.flags & SYN, tcp.flags & FIN
        if tcp.flags & RST:
            return False
        self._speak(packet, sent, from_client=from_client)
        if (not length and not opens and not ends and tcp.window) or sent is None:
            return False
        is_probe = length <= 1 and distance(tcp.sequence, sent) == 1 and not opens and not ends
        is_again = bool(length or opens or ends) and 0 <= distance(packet.end, sent) < 1 << 20 and not is_probe
        if is_again:
            self.again[from_client].add(place, packet.end)
            at, count = self.tries.get(from_client, (tcp.sequence, 0))
            self.tries[from_client] = tcp.sequence, count + 1 if at == tcp.sequence else 1
        if tcp.window == 0 and not opens:
            self.closed_window[from_client].add(place, packet.end)
        return is_again

    def _speak(self, packet: Packet, sent: int | None, *, from_client: bool) -> None:
        assert packet.tcp is not None
        self.shut[from_client] = packet.tcp.window == 0 and not packet.tcp.flags & SYN
        if packet.tcp.flags & FIN:
            self.ended.add(from_client)
        if sent is None or distance(sent, packet.end) > 0:
            self._sent[from_client] = packet.end
            self.spoke = from_client if packet.payload_length else self.spoke

    def went_on(self, lanes: Mapping[bool, Lane], kept: Sequence[Kept]) -> None:
        """Take plain segments into account, of which the last ones are kept: they are new, and no window is closed."""
        for side, lane in lanes.items():
            if lane.count:
                self.shut[side] = False
                if side not in self._sent or distance(self._sent[side], lane.sender.end) > 0:
                    self._sent[side], self.spoke = lane.sender.end, side
        last = next((one for one in reversed(kept) if one.packet.payload_length), None)
        self.spoke = self.spoke if last is None else last.lane.from_client
