# SPDX-License-Identifier: MIT
"""The packets that are the most and of which there is nothing to tell: taken in by a look at a few of their fields.

Such are the segments of an established connection that is captured at one point: the next bytes in order, or an ACK of
more than before, with no flags but ACK and PSH, no options but timestamps, within the window. So are the handshake and
the end of a connection that is ordinary (:mod:`lab.capture.ordinary`). Everything else goes the long way
(:mod:`lab.capture.following`), and finds the connection as if all of it had gone there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from lab.capture.connection import Connection
from lab.capture.datagrams import Datagrams
from lab.capture.frames import Frame, Taker
from lab.capture.headers import key_in, turned
from lab.capture.lane import Lane, Stream
from lab.capture.lane import kept as kept_of
from lab.capture.ordinary import Ordinary, Raw, raw
from lab.capture.quick import accepts
from lab.capture.remembered import Remembered
from lab.evidence.packet import SYN, TCP, UDP

_HALF: Final = 1 << 31
_MASK: Final = (1 << 32) - 1
_FLAGS: Final = 0x3F  # as lab.capture.headers has them
_PADDED_TIMESTAMPS: Final = 0x0101080A  # as RFC 7323, appendix A has them, and every stack sends them
#: From the IP header on: version, length, fragment, protocol, addresses and ports, and of TCP's header the numbers, its
#: length, flags, window, and the first option. IPv6 has no fragment there.
_IPV4: Final = "BxH2xHxB2x12sIIBBHxxxxI"
_IPV6: Final = "BxxxHBx36sIIBBHxxxxI"
#: By LINKTYPE_: how its header begins, how long it is, and the kinds of IP in it.
_RAW: Final = ("!0s", 0, b"", b"")
_LINKS: Final = {1: ("!12x2s", 14, b"\x08\x00", b"\x86\xdd"), **dict.fromkeys((12, 14, 101, 228, 229), _RAW)}

#: Returns the ordinary connection that a SYN begins, by its addresses and ports, what was captured of it, its section,
#: where it was seen and where its IP header begins; None where it begins none.
Begin: TypeAlias = Callable[[bytes, Raw, int, Stream, int], Ordinary | None]
_Home: TypeAlias = dict[bytes, Lane]


class Plain:
    """The directions in which nothing happens, and what takes their packets.

    :ivar last: the connection that had a packet last.
    :ivar taken: how many packets were taken.
    :param touch: is told which connection had a packet, where the one before was of another.
    :param begin: is asked for the connection that a SYN begins.
    :param remembered: the packets of connections whose SYN was not seen.
    :param datagrams: takes those of UDP.
    """

    def __init__(
        self,
        touch: Callable[[Connection | Ordinary], None],
        begin: Begin,
        remembered: Remembered,
        datagrams: Datagrams,
    ) -> None:
        self.last: Connection | Ordinary | None = None
        self.taken = 0
        self._touch = touch
        self._begin = begin
        self._remembered = remembered
        self._datagrams = datagrams
        self._homes: dict[tuple[int, Stream], _Home] = {}

    def taker(self, link: int, section: int, stream: Stream) -> Taker | None:
        """Return what takes plain segments of a link; None where all its packets go the long way."""
        if link not in _LINKS:
            return None
        begins, at, ipv4, ipv6 = _LINKS[link]
        unpack, unpack_ipv6 = struct.Struct(begins + _IPV4).unpack_from, struct.Struct(begins + _IPV6).unpack_from
        home = self._homes.setdefault((section, stream), {})
        find, advance, remember = home.get, self._advance, self._remembered.add_plain
        begin, goes_on = partial(self._begun, section, stream, at, home), self._goes_on
        take_datagram = self._datagrams.taker(section, stream, at)

        def take(data: bytes, begun: int, kept: int, number: int, time: int) -> bool:
            try:
                kind, version, total, fragment, protocol, key, sequence, acknowledged, offset, flags, window, option = (
                    unpack(data, begun)
                )
                header = at + 40
                if version != 0x45 or kind != ipv4:
                    if version >> 4 != 6 or kind != ipv6:
                        return False
                    header, fragment = at + 60, 0
                    kind, version, total, protocol, key, sequence, acknowledged, offset, flags, window, option = (
                        unpack_ipv6(data, begun)
                    )
                    total += 40
            except struct.error:
                return False
            if protocol != TCP or fragment & 0x1FFF:
                is_datagram = protocol == UDP and not fragment & 0x1FFF
                return is_datagram and take_datagram(key, total, data, begun, kept, number, time)
            lane = find(key)
            if lane is None and flags & _FLAGS != SYN:
                return False
            if offset >> 4 == 8 and option == _PADDED_TIMESTAMPS and kept >= header + 4:
                header += 12
            elif flags & SYN:  # has options of its own
                header += (offset >> 4) * 4 - 20
            elif offset >> 4 != 5 or kept < header:
                return False
            length = total + at - header
            headers = data[begun : begun + (header if header < kept else kept)]
            if lane is None:
                return not length and begin(key, raw((headers, number, time)))
            if flags & 0x37 != 0x10 or not advance(lane, sequence, length, acknowledged, window):
                return goes_on(lane, raw((headers, number, time)), sequence, length, acknowledged, flags, window)
            known = kept_of((lane, headers, number, time))
            lane.kept.append(known)
            if not lane.begins:
                remember(known)
            return True

        return take

    def _advance(self, lane: Lane, sequence: int, length: int, acknowledged: int, window: int) -> bool:
        """Check whether a segment brings something new and is in the window, and take it into account if so."""
        sender = lane.sender
        newer = (acknowledged - lane.acknowledged + _HALF & _MASK) > _HALF
        if sequence != sender.end or not window or length < (not newer):
            return False
        if not accepts(sender, lane.receiver, sequence, length, acknowledged, window):
            return False
        if newer:
            lane.acknowledged = acknowledged
        lane.count += 1
        self.taken += 1
        connection = lane.connection
        if connection is not self.last:
            self.last = connection
            self._touch(connection)
        return True

    def _goes_on(
        self, lane: Lane, seen: Raw, sequence: int, length: int, acknowledged: int, flags: int, window: int
    ) -> bool:
        """Check whether a segment that is no plain one is what an ordinary connection sends, and take it if it is."""
        one = lane.ordinary
        if one is None or not one.take(lane, seen, sequence, length, acknowledged, flags, window):
            return False
        self.taken += 1
        if one is not self.last:
            self.last = one
            self._touch(one)
        return True

    def _begun(self, section: int, stream: Stream, at: int, home: _Home, key: bytes, seen: Raw) -> bool:
        """Check whether the SYN of nobody begins a connection that may be ordinary, and follow that if so."""
        begun = self._begin(key, seen, section, stream, at)
        if begun is None:
            return False
        begun.live(home)
        self.taken += 1
        self.last = begun
        self._touch(begun)
        return True

    def open(self, connection: Connection, frame: Frame, stream: Stream) -> None:
        """Have plain segments of a connection taken from here on, where it is such that they can be.

        :param frame: the one that went the long way just now.
        """
        self.last = connection
        windows = connection.windows_at_one_point()
        if windows is None:
            for lane in connection.lanes.values():
                lane.close()
            return
        if not connection.lanes:
            self._make_lanes(connection, frame, stream)
        for lane in connection.lanes.values():
            sides = (windows.client, windows.server)
            lane.sender, lane.receiver = sides if lane.from_client else sides[::-1]
            connection.open_lane(lane)

    def _make_lanes(self, connection: Connection, frame: Frame, stream: Stream) -> None:
        home, key = self._homes.get((frame.section, stream)), key_in(frame.data, frame.at)
        if home is None or key is None:
            return
        side = connection.is_from_client(frame.packet)
        for one, from_client in ((key, side), (turned(key), not side)):
            lane = Lane(connection, stream, one, home, frame.at, from_client=from_client)
            connection.lanes[from_client] = lane
