# SPDX-License-Identifier: MIT
"""Exchanges of datagrams of which there is nothing to tell so far: at one point, and no datagram there twice.

Most are so from their first datagram to their last: a question to a DNS server, and its answer. Of these little more is
kept than numbers, and the questions that nothing has answered as they were captured; where something happens after all,
a :class:`lab.capture.exchange.Exchange` is told these, and is as if it had seen every datagram when it came.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from lab.capture.exchange import Asking, Datagram, Exchange, way_of
from lab.capture.explanation import Explained, Place
from lab.capture.frames import Frame
from lab.capture.headers import ends_of, udp_packet
from lab.capture.lane import Stream
from lab.verdict import Outcome


class Glimpse(NamedTuple):
    """A datagram of such an exchange: its headers as they were captured, and the first bytes of what it carries."""

    brief: Brief
    from_client: bool
    begins: bytes
    headers: bytes
    number: int
    time: int

    @property
    def datagram(self) -> Datagram:
        """The datagram, and where it was seen."""
        of = self.brief
        file, interface, way = of.stream
        packet = udp_packet(self.headers, of.at)
        assert packet is not None
        frame = Frame(self.time, interface, way, packet, self.number, of.section, self.headers, of.at)
        place, form = Place(file, self.number, self.time, interface), ((file, interface), way_of(frame))
        return Datagram(packet, self.from_client, self.begins, [place], [(*form, packet.source, packet.destination)])


#: Makes one without a call in Python: this is done once a packet.
glimpse: Final[Callable[[tuple[Brief, bool, bytes, bytes, int, int]], Glimpse]] = partial(tuple.__new__, Glimpse)


class Brief(Asking[Glimpse]):
    """One exchange, as long as there is nothing to tell of it.

    :param key: addresses and ports of its questions, as packets have them.
    :param order: its number among the exchanges of the capture.
    :param at: where in a frame the IP header begins.
    :ivar became: what took its place when something happened.
    """

    __slots__ = ("at", "became", "key", "order", "section", "stream")

    def __init__(self, order: int, key: bytes, section: int, stream: Stream, at: int) -> None:
        super().__init__()
        self.order, self.key, self.section, self.stream, self.at = order, key, section, stream, at
        self.became: Exchange | None = None

    def tell(self) -> Exchange:
        """Return an exchange that knows all of its datagrams."""
        file, interface, _way = self.stream
        made = Exchange(*ends_of(self.key), self.order, self.section)
        made.questions, made.answers, made.unanswered = self.questions, self.answers, self.unanswered
        made.asked, made.waiting = self.asked, [one.datagram for one in self.waiting]
        made.pass_by((file, interface), is_asked=self.questions > 0)
        return made

    def explained(self) -> Explained:
        """Return what is to be told of it, where every question is answered."""
        ends, point = ends_of(self.key), self.stream[1]
        return Explained.uneventful(ends, point, self.section, self.count, Outcome.DELIVERED, protocol="UDP")
