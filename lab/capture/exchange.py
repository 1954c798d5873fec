# SPDX-License-Identifier: MIT
"""Datagrams between one client's port and whom it asks: each once, and where it was seen in which form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lab.capture.explanation import Place, Point
from lab.capture.icmp import IcmpError
from lab.evidence.packet import Packet, SocketAddress

_KEPT: Final = 20  # of each kind
_WAITING: Final = 64  # questions of which one may still be answered


@dataclass(slots=True)
class Datagram:
    """One datagram, however often it was captured.

    :ivar begins: the first bytes of what it carries.
    :ivar leaked: where its receiver's side has it untranslated.
    :ivar doubled: where one point has it twice.
    """

    packet: Packet
    from_client: bool
    begins: bytes
    places: list[Place] = field(default_factory=list)
    forms: list[tuple[Point, bool | bytes | None, SocketAddress, SocketAddress]] = field(default_factory=list)
    leaked: Place | None = None
    doubled: Place | None = None

    @property
    def destinations(self) -> set[SocketAddress]:
        """To whom it was seen going."""
        return {destination for _point, _way, _source, destination in self.forms}


class Exchange:
    """What one port of a client asks of one address, and what comes back.

    :ivar endpoints: whom the questions were seen going to instead, the last one last.
    :ivar peers: as whom the client was seen asking, behind a masquerade.
    :ivar asked: when the first questions were sent.
    :ivar waiting: questions that nothing has answered.
    :ivar unanswered: how many there are no more of, as later ones came; some of them are kept.
    :ivar translated: when a question was seen translated first.
    :ivar on_the_way: where questions that were translated were seen before that.
    :ivar again: a datagram that was seen once more at a point, where nothing tells which way it went.
    :ivar errors: what ICMP said of it.
    """

    def __init__(self, client: SocketAddress, target: SocketAddress, section: int) -> None:
        self.client, self.target, self.section = client, target, section
        self.endpoints: dict[SocketAddress, None] = {}
        self.peers: dict[SocketAddress, None] = {}
        self.count = self.questions = self.answers = self.unanswered = 0
        self.points: dict[Point, None] = {}
        self.asked: list[int] = []
        self.waiting: list[Datagram] = []
        self.odd: list[Datagram] = []
        self.errors: dict[str, IcmpError] = {}
        self._before: set[Point] = set()
        self._behind: set[Point] = set()
        self.translated: int | None = None
        self.on_the_way: set[Point] = set()
        self.again: Place | None = None

    def is_from_client(self, packet: Packet) -> bool:
        """Check which side a datagram is from."""
        return packet.source == self.client or packet.source in self.peers

    def translate(self, packet: Packet, *, from_client: bool) -> None:
        """Take it that a datagram is seen with other addresses than the client gave it."""
        source, destination = packet.source, packet.destination
        peer, endpoint = (source, destination) if from_client else (destination, source)
        if peer != self.client:
            self.peers.setdefault(peer)
        if endpoint != self.target:
            self.endpoints.pop(endpoint, None)
            self.endpoints[endpoint] = None

    def add(self, datagram: Datagram, time: int) -> None:
        """Take a datagram into account that was not seen before."""
        self.count += 1
        if datagram.from_client:
            self.questions += 1
            self.waiting.append(datagram)
            if len(self.asked) < _KEPT:
                self.asked.append(time)
            if len(self.waiting) > _WAITING:
                del self.waiting[0]
                self.unanswered += 1
            return
        self.answers += 1
        if self.waiting:
            # What an answer begins with is what its question did: of a DNS message its number (RFC 1035, 4.1.1).
            self.waiting.remove(max(self.waiting, key=lambda one: _alike(one.begins, datagram.begins)))

    def see(self, datagram: Datagram, packet: Packet, place: Place, point: Point, way: bool | bytes | None) -> None:
        """Take into account where a datagram was seen, and in which form.

        :param way: where it was going there, by the direction or the receiver on the link; None where nothing tells.
        """
        form = (point, way, packet.source, packet.destination)
        if way is None and form in datagram.forms:  # it may have come in there and gone out again
            self.again = self.again or place
        elif form in datagram.forms:
            datagram.doubled = datagram.doubled or place
            self._keep(datagram)
        datagram.places.append(place)
        datagram.forms.append(form)
        self.points.setdefault(point)
        if datagram.from_client:
            as_asked = (packet.source, packet.destination) == (self.client, self.target)
            (self._before if as_asked else self._behind).add(point)
            if not as_asked:
                self.translated = place.time if self.translated is None else self.translated
                self.on_the_way.update(seen[0] for seen in datagram.forms if seen[3] == self.target)
        elif packet.destination == self.client and packet.source != self.target and point in self.client_s_side():
            datagram.leaked = datagram.leaked or place
            self._keep(datagram)

    def client_s_side(self) -> set[Point]:
        """Return the points at which questions are seen as the client asks them, and in no other form."""
        return self._before - self._behind

    def _keep(self, datagram: Datagram) -> None:
        if len(self.odd) < _KEPT and all(one is not datagram for one in self.odd):
            self.odd.append(datagram)

    def is_untranslated(self, datagram: Datagram) -> bool:
        """Check whether a question was seen in its first form alone."""
        return datagram.destinations == {self.target} and all(one[2] == self.client for one in datagram.forms)


def _alike(one: bytes, other: bytes) -> int:
    """Return how many bytes two have in common from their beginning on."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
