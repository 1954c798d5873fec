# SPDX-License-Identifier: MIT
"""Gaps of a capture: bytes that a connection went on from, and that are not there.

To a node that saw no more than the capture, what acknowledges such bytes or follows them is out of the window. Whether
the node had them is told by the other side: a packet that nobody took (forged, or from long ago) leaves the connection
where it was, and behind a gap both sides go on from where the packet is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.capture.judging import FINE, Conntrack
from lab.evidence.follow import distance
from lab.evidence.packet import RST, SYN, Packet

if TYPE_CHECKING:
    from lab.capture.connection import Segment
    from lab.capture.explanation import Place
    from lab.capture.naming import Naming

_MOST: Final = 64  # packets that are in doubt at the same time
_PATIENCE: Final = 1000  # packets after which nothing is made of a doubt any more
_NEAR: Final = 1 << 22  # bytes between a packet and the next one of the other side that goes on from there


@dataclass(frozen=True)
class Gap:
    """Bytes of one side that are missing; none where only what granted them is.

    :param place: the first packet behind it.
    """

    place: Place
    from_client: bool
    length: int

    def words(self, named: Naming) -> str:
        """Return what is missing, in words."""
        who = "client" if self.from_client else "server"
        what = f"{self.length:,} bytes of the {who}" if self.length else f"acknowledgements of the {who}"
        return f"{what} before {named.packet(self.place)}"


class Gaps:
    """Keeps the packets that were out of the window until it is told whether the connection went on from them.

    :ivar found: the gaps, in the order of the capture.
    """

    def __init__(self, conntrack: Conntrack) -> None:
        self.found: list[Gap] = []
        self._conntrack = conntrack
        self._doubted: list[Segment] = []
        self._waited = 0

    @property
    def in_doubt(self) -> bool:
        """Whether the next packets are to tell of a gap."""
        return bool(self._doubted)

    def doubt(self, segment: Segment) -> None:
        """Take it that a packet was judged, which may be so by what is missing."""
        tcp, word = segment.packet.tcp, segment.word
        if tcp is None or word.by != "window" or word.condition not in ("I", "III") or tcp.flags & (RST | SYN):
            return
        if len(self._doubted) < _MOST:
            self._doubted.append(segment)
            self._waited = 0

    def behind(self, packet: Packet, follows: dict[bool, int], *, from_client: bool) -> list[Segment]:
        """Return the packets that were right, as this one goes on from one of them: nothing is said against them.

        :param follows: the number behind what was captured of each side without a gap; is set to where it goes on.
        """
        tcp = packet.tcp
        if not self._doubted or tcp is None or tcp.flags & RST:
            return []
        sent = self._conntrack.sent(by_client=from_client)
        for one in self._doubted:
            awaited = follows.get(one.from_client)
            if one.from_client != from_client and one.leaked is None and _goes_on(packet, one, sent, awaited):
                return self._mend(one, follows)
        self._waited += 1
        self._doubted = [one for one in self._doubted if not _denies(packet, one, sent, from_client=from_client)]
        if self._waited > _PATIENCE:
            self._doubted.clear()
        return []

    def _mend(self, proven: Segment, follows: dict[bool, int]) -> list[Segment]:
        right = [one for one in self._doubted if one.leaked is None]
        self._doubted.clear()
        missing = self._missing(proven, follows.get(proven.from_client))
        self.found += [Gap(proven.place, side, length) for side, length in missing if length > 0]
        if not self.found or self.found[-1].place != proven.place:
            self.found.append(Gap(proven.place, not proven.from_client, 0))
        for one in right:
            self._conntrack.take_up(one.packet, _reached(one), from_client=one.from_client)
            one.word, follows[one.from_client] = FINE, one.packet.end
        return right

    def _missing(self, proven: Segment, follows: int | None) -> list[tuple[bool, int]]:
        """Return how many bytes of each side are not there before a packet.

        :param follows: the number behind what was captured of its side without a gap.
        """
        tcp = proven.packet.tcp
        assert tcp is not None
        side = proven.from_client
        own, other = (self._conntrack.sent(by_client=one) for one in (side, not side))
        if proven.word.condition == "I" and own == proven.packet.end:  # as of one that is ignored
            own = follows
        return [
            (side, 0 if own is None else distance(own, tcp.sequence)),
            (not side, 0 if other is None else distance(other, _reached(proven))),
        ]


def _reached(segment: Segment) -> int:
    """Return the furthest number that a packet acknowledges, selectively as well."""
    tcp = segment.packet.tcp
    assert tcp is not None
    reached = tcp.acknowledgement
    for _left, right in tcp.sack_blocks:
        reached = right if distance(reached, right) > 0 else reached
    return reached


def _goes_on(packet: Packet, one: Segment, sent: int | None, awaited: int | None) -> bool:
    """Check whether a packet goes on from what the other side is in doubt for.

    Its sender is behind what was seen of it, and where that packet says that it is; or it acknowledges that packet,
    which nothing else explains.
    """
    tcp = packet.tcp
    assert tcp is not None
    reached = _reached(one)
    if sent is not None and distance(sent, reached) > 0 and distance(sent, tcp.sequence) > 0:
        return 0 <= distance(reached, tcp.sequence) <= _NEAR
    if one.word.condition != "I" or not 0 <= distance(one.packet.end, tcp.acknowledgement) <= _NEAR:
        return False
    return one.exact or (awaited is not None and distance(awaited, tcp.acknowledgement) > 0)


def _denies(packet: Packet, one: Segment, sent: int | None, *, from_client: bool) -> bool:
    """Check whether a packet says that the connection is where it was: it begins at what its sender had sent last."""
    tcp = packet.tcp
    assert tcp is not None
    if one.from_client != from_client:
        return one.word.condition == "III" and tcp.sequence == sent and not _fills(packet, one)
    if one.word.condition != "I":
        return False
    first = one.packet.tcp
    assert first is not None
    return distance(tcp.sequence, first.sequence) >= 0 and packet.payload_length > 0


def _fills(packet: Packet, one: Segment) -> bool:
    """Check whether a packet begins among what is missing before the bytes that the other side has selectively."""
    tcp, asked = packet.tcp, one.packet.tcp
    assert tcp is not None
    assert asked is not None
    blocks = asked.sack_blocks
    is_among = any(distance(left, tcp.sequence) >= 0 < distance(tcp.sequence, right) for left, right in blocks)
    behind = any(distance(tcp.sequence, left) > 0 for left, _right in blocks)
    return behind and not is_among and distance(asked.acknowledgement, tcp.sequence) >= 0
