# SPDX-License-Identifier: MIT
"""Connections of which there is nothing to tell so far: from a SYN on, everything as it should be, at one point.

Most connections of most captures are so from their first packet to their last. Of these a few numbers are kept, and the
headers of their first and last packets; where something happens after all, a
:class:`lab.capture.connection.Connection` is told these, and is as if it had seen every packet when it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lab.capture.explanation import Explained, Place
from lab.capture.frames import Frame
from lab.capture.headers import ends_of, tcp_options, tcp_packet, turned
from lab.capture.lane import RECENT, Kept, Lane, Stream
from lab.capture.quick import QuickSide, accepts
from lab.evidence.packet import ACK, FIN, SYN, SocketAddress
from lab.evidence.window import MOST_SCALE
from lab.verdict import Outcome

if TYPE_CHECKING:
    from lab.capture.connection import Connection
    from lab.capture.plain import Plain

_HALF: Final = 1 << 31
_MASK: Final = (1 << 32) - 1
_PLAIN_MASK: Final = 0x37  # every flag but PSH, which means nothing to conntrack
_MOST: Final = 24  # packets whose headers are kept: more behind a FIN are not ordinary
_HANDSHAKE: Final = 3  # packets
_ASKED, _ANSWERED, _OPEN, _ENDING, _CLOSED = range(5)
_NOBODY: Final = QuickSide(-1, 0, 0, 0)  # sends nothing: no plain segment is taken for it


class Raw(NamedTuple):
    """A packet's headers as they were captured."""

    headers: bytes
    number: int
    time: int


#: Makes one without a call in Python: this is done once a packet.
raw: Final[Callable[[tuple[bytes, int, int]], Raw]] = partial(tuple.__new__, Raw)


class Ordinary:
    """One connection, as long as it is ordinary.

    :ivar sequence: the number of its SYN.
    :ivar unscaled: how windows are scaled is not known, as a SYN's options were cut.
    :ivar odd: none of its packets is out of the ordinary.
    :param order: its number among the connections of the capture.
    :param key: the addresses and ports of its SYN, as they are in it.
    :param raw: the SYN as it was captured; ``syn``: its number, window and options.
    :param home: where the connection of a packet is looked for, by its addresses and ports.
    :param at: where in a frame the IP header begins.
    """

    __slots__ = (
        *("kept", "key", "lanes", "order", "section", "sequence", "stream", "unscaled"),
        *("_at", "_before", "_ended", "_fins", "_last", "_packets", "_scales", "_sides", "_state"),
    )
    odd: Final = ()

    def __init__(
        self,
        order: int,
        key: bytes,
        raw: Raw,
        syn: tuple[int, int, dict[str, Any]],
        section: int,
        stream: Stream,
        at: int,
    ) -> None:
        self.sequence, window, options = syn
        self.order, self.key, self.section, self.stream, self._at = order, key, section, stream, at
        self.kept: deque[Kept] = deque(maxlen=RECENT)
        self.lanes: dict[bool, Lane] = {}
        self.unscaled = False
        self._packets = [raw]
        self._state, self._fins = _ASKED, 0
        self._ended: tuple[int, ...] = ()
        self._last: Kept | None = None  # of those that are kept no more
        self._before: tuple[tuple[int, int, int, int], ...] | None = None
        scale = self._scale(options)
        self._scales = scale is not None
        end = (self.sequence + 1) & _MASK
        self._sides = (QuickSide(end, end, window or 1, scale or 0), QuickSide(0, 0, 0, 0))

    @property
    def ends(self) -> tuple[SocketAddress, SocketAddress]:
        """The client, and whom it asked."""
        return ends_of(self.key)

    def live(self, home: dict[bytes, Lane]) -> None:
        """Have its packets found by their addresses and ports."""
        for one, from_client in ((self.key, True), (turned(self.key), False)):
            lane = Lane(self, self.stream, one, home, self._at, from_client=from_client)
            lane.begins = lane.follows = True
            lane.ordinary, lane.sender = self, _NOBODY
            self.lanes[from_client] = home[one] = lane

    def _scale(self, options: dict[str, Any]) -> int | None:
        """Return by how much a side scales its windows, by its options; None where it does not say that it does."""
        scale = options.get("window_scale")
        if scale is None and options.get("is_cut"):
            self.unscaled = True  # as lab.capture.judging has it
            return MOST_SCALE
        return None if scale is None else min(scale, MOST_SCALE)

    @property
    def closed(self) -> bool:
        """Whether it is over: each side has sent a FIN."""
        return self._state == _CLOSED

    @property
    def answered(self) -> bool:
        """Whether the server has answered."""
        return self._state > _ASKED

    @property
    def is_open(self) -> bool:
        """Whether its handshake is done, so that there is nothing to tell if no more packets come."""
        return self._state >= _OPEN

    def take(
        self, lane: Lane, raw: Raw, sequence: int, length: int, acknowledged: int, flags: int, window: int
    ) -> bool:
        """Check whether a segment is what an ordinary connection sends next, and take it into account if it is.

        :param length: of its payload.
        """
        kind = flags & _PLAIN_MASK
        if self._state == _ASKED:
            if kind != SYN | ACK or lane.from_client or length or not self._answer(raw, sequence, acknowledged, window):
                return False
        elif len(self._packets) == _MOST or not window:
            return False
        elif self._state == _ANSWERED:
            client, server = self._sides
            if kind != ACK or length or not lane.from_client or (sequence, acknowledged) != (client.end, server.end):
                return False
            if not accepts(client, server, sequence, 0, acknowledged, window):
                return False
            self._open()
        elif kind == ACK | FIN or (kind == ACK and self._state > _OPEN):
            if not self._goes_on(lane, sequence, length, acknowledged, window, fin=kind != ACK):
                return False
        else:
            return False
        self._packets.append(raw)
        return True

    def _answer(self, raw: Raw, sequence: int, acknowledged: int, window: int) -> bool:
        """Take a SYN,ACK into account, as ``tcp_init_sender`` and the window check behind it do."""
        client = self._sides[0]
        options = tcp_options(raw.headers, self._at)
        if options is None or "sack_blocks" in options or acknowledged != client.end:
            return False
        scale = self._scale(options)
        if scale is None or not self._scales:
            client.scale = scale = 0
        end = (sequence + 1) & _MASK
        self._sides = (client, QuickSide(end, end, window or 1, scale))
        client.limit = (acknowledged + (window or 1)) & _MASK
        self._state = _ANSWERED
        return True

    def _open(self) -> None:
        client, server = self._sides
        for side, sender, receiver in ((True, client, server), (False, server, client)):
            lane = self.lanes[side]
            lane.sender, lane.receiver, lane.acknowledged = sender, receiver, receiver.end
        self._state = _OPEN

    def _goes_on(
        self, lane: Lane, sequence: int, length: int, acknowledged: int, window: int, *, fin: bool
    ) -> bool:  # fmt: skip
        """Check whether a segment brings something new and is in the window, and take it into account if so."""
        by = 1 if lane.from_client else 2
        sender, receiver = self._sides if lane.from_client else self._sides[::-1]
        newer = (acknowledged - lane.acknowledged + _HALF & _MASK) > _HALF
        if sequence != sender.end or (fin and self._fins & by) or length + fin < (not newer):
            return False
        before = self._numbers() if self._state == _OPEN else self._before
        if not accepts(sender, receiver, sequence, length + fin, acknowledged, window):
            return False
        self._before = before
        lane.acknowledged = acknowledged if newer else lane.acknowledged
        if fin:
            self._fins |= by
            self._state = _CLOSED if self._fins == 3 else _ENDING
            for one in self.lanes.values():
                one.sender = _NOBODY
        return True

    def _numbers(self) -> tuple[tuple[int, int, int, int], ...]:
        """Return what is known of the client and of the server, beside what never changes."""
        (client, server), lanes = self._sides, self.lanes
        return (
            (client.end, client.limit, client.window, lanes[True].acknowledged),
            (server.end, server.limit, server.window, lanes[False].acknowledged),
        )

    def end(self) -> None:
        """Take it that no more copies of any packet come."""
        self._ended = (*self._ended, len(self._packets))
        if self.kept:
            self._last = self.kept[-1]
            self.kept.clear()

    def close(self) -> None:
        """Take no more packets."""
        for lane in self.lanes.values():
            lane.close()

    def let_go(self) -> None:
        """Know none of those who know it: without them it is gone at once, which nobody looks for."""
        self.close()
        self.lanes.clear()
        self.kept.clear()
        self._last = None

    def tell(self, connection: Connection, plain: Plain) -> None:
        """Tell a connection every packet, and have its plain ones taken from here on."""
        self.close()
        for place, raw in enumerate([*self._packets, None]):
            if place in self._ended:
                connection.end()
            if place == _HANDSHAKE:
                self._tell_plain(connection)
            packet = tcp_packet(raw.headers, self._at) if raw is not None else None
            if raw is None or packet is None:
                return
            frame = Frame(raw.time, self.stream[1], None, packet, raw.number, self.section, raw.headers, self._at)
            connection.settle()
            connection.see(frame, Place(self.stream[0], raw.number, raw.time, self.stream[1]), self.stream)
            plain.open(connection, frame, self.stream)

    def _tell_plain(self, connection: Connection) -> None:
        """Tell a connection whose handshake was told of the plain segments behind it."""
        if self._last is not None:
            connection.went_on([self._last])
        for (end, limit, window, acknowledged), side in zip(
            self._before or self._numbers(), (True, False), strict=True
        ):
            lane, own = connection.lanes[side], self.lanes[side]
            lane.sender.end, lane.sender.limit, lane.sender.window = end, limit, window
            lane.acknowledged, lane.count = acknowledged, own.count
        connection.kept.extend(self.kept)

    def explained(self) -> Explained:
        """Return what is to be told of it."""
        packets = len(self._packets) + sum(lane.count for lane in self.lanes.values())
        asked = self._packets[0].time
        return Explained.uneventful(self.ends, self.stream[1], self.section, packets, Outcome.CONNECTED, asked=asked)
