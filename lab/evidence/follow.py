# SPDX-License-Identifier: MIT
"""Following a live connection's numbers from the packets at one of its ends."""

from __future__ import annotations

from dataclasses import dataclass

from lab.evidence.packet import ACK, RST, SEQUENCE_SPACE, SYN, Packet, SocketAddress


def distance(first: int, second: int) -> int:
    """Return second - first in sequence space, from -2^31 to 2^31 - 1 (RFC 9293, 3.4; RFC 1982)."""
    return (second - first + SEQUENCE_SPACE // 2) % SEQUENCE_SPACE - SEQUENCE_SPACE // 2


@dataclass(slots=True)
class Side:
    """One side of a connection, as its packets tell it.

    :ivar first: its initial sequence number.
    :ivar sent: SND.NXT, the number after the last byte it sent.
    :ivar acknowledged: RCV.NXT as it last told, None before its first ACK.
    :ivar window: the largest window it offered, scaled, in bytes.
    :ivar timestamps: the timestamp option of its last packet.
    """

    endpoint: SocketAddress
    first: int
    sent: int
    acknowledged: int | None = None
    window: int = 0
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None
    last_window_field: int = 0


class Connection:
    """Both sides of one TCP connection; feed it the packets of one interface in their order."""

    def __init__(self) -> None:
        self._sides: dict[SocketAddress, Side] = {}

    def adopt(self, *sides: Side) -> None:
        """Go on from the sides of a connection whose packets were not seen."""
        self._sides = {side.endpoint: side for side in sides}

    def see(self, packet: Packet) -> None:
        """Take one packet into account."""
        tcp = packet.tcp
        if tcp is None or tcp.flags & RST:
            return  # a reset's number is copied from what it answers (RFC 9293, 3.5.2), and tells nothing of its sender
        side = self._sides.get(packet.source)
        if side is None:
            if not tcp.flags & SYN:
                return  # never seen to begin: not this connection
            side = self._sides[packet.source] = Side(
                packet.source,
                tcp.sequence,
                packet.end,
                window_scale=tcp.window_scale,
                sack_permitted=tcp.sack_permitted,
            )
        if distance(side.sent, packet.end) > 0:
            side.sent = packet.end
        if tcp.flags & ACK:
            side.acknowledged = tcp.acknowledgement
        side.timestamps = tcp.timestamps or side.timestamps
        side.last_window_field = tcp.window
        scale = 0 if tcp.flags & SYN else self._scale(side)
        side.window = max(side.window, tcp.window << scale)

    def _scale(self, side: Side) -> int:
        # The scale counts only where both SYNs carried the option (RFC 7323, 2.2).
        scales = [other.window_scale for other in self._sides.values()]
        return side.window_scale or 0 if len(scales) == 2 and None not in scales else 0

    def side(self, endpoint: SocketAddress) -> Side | None:
        """Return the side whose packets come from ``endpoint``, or None before its SYN."""
        return self._sides.get(endpoint)

    def other(self, endpoint: SocketAddress) -> Side | None:
        """Return the side opposite ``endpoint``."""
        return next((side for key, side in self._sides.items() if key != endpoint), None)

    @property
    def quiet(self) -> bool:
        """True when each side has acknowledged all that the other sent: nothing is in flight."""
        sides = list(self._sides.values())
        return len(sides) == 2 and all(side.acknowledged == other.sent for side, other in (sides, reversed(sides)))
