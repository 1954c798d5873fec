# SPDX-License-Identifier: MIT
"""Datagrams between one client's port and whom it asks: each once, and where it was seen in which form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from lab.capture.explanation import Place, Point
from lab.capture.frames import Frame
from lab.capture.icmp import IcmpError
from lab.capture.link import BEHIND_ETHERNET
from lab.evidence.packet import Packet, SocketAddress

_KEPT: Final = 20  # of each kind
_WAITING: Final = 64  # questions of which one may still be answered, or whose answer may come
_LEAST: Final = 1_000_000  # ns; a node takes microseconds from one interface to the other
_AS_LONG: Final = 4  # times the question's way, by when its answer has come
FEW: Final = 5  # of them, where nothing comes any more: as many as are told


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


_Asked = TypeVar("_Asked", bound="Begun")


class Begun(Protocol):
    """A datagram of which the first bytes that it carries are known."""

    @property
    def begins(self) -> bytes:
        """These bytes."""


class Asking(Generic[_Asked]):
    """Questions and answers, counted.

    :ivar asked: when the first questions were sent.
    :ivar waiting: questions that nothing has answered.
    :ivar unanswered: how many there are no more of, as later ones came; some of them are kept.
    """

    __slots__ = ("answers", "asked", "questions", "unanswered", "waiting")

    def __init__(self) -> None:
        self.questions = self.answers = self.unanswered = 0
        self.asked: list[int] = []
        self.waiting: list[_Asked] = []

    @property
    def count(self) -> int:
        """How many datagrams there are."""
        return self.questions + self.answers

    def add(self, datagram: _Asked, time: int, *, from_client: bool) -> _Asked | None:
        """Take a datagram into account that was not seen before; return the question that it answers."""
        waiting = self.waiting
        if from_client:
            self.questions += 1
            waiting.append(datagram)
            if len(self.asked) < _KEPT:
                self.asked.append(time)
            if len(waiting) > _WAITING:
                del waiting[0]
                self.unanswered += 1
            return None
        self.answers += 1
        if len(waiting) < 2:
            return waiting.pop() if waiting else None
        # What an answer begins with is what its question did: of a DNS message its number (RFC 1035, 4.1.1).
        alike = [_alike(one.begins, datagram.begins) for one in waiting]
        return waiting.pop(alike.index(max(alike)))

    def thin(self) -> None:
        """Keep few of the questions that nothing has answered, and count the others."""
        more = len(self.waiting) - FEW
        if more > 0:
            self.unanswered += more
            del self.waiting[:more]


class Exchange(Asking[Datagram]):
    """What one port of a client asks of one address, and what comes back.

    :ivar order: its number among the exchanges of the capture.
    :ivar endpoints: whom the questions were seen going to instead, the last one last.
    :ivar peers: as whom the client was seen asking, behind a masquerade.
    :ivar translated: when a question was seen translated first.
    :ivar on_the_way: where questions that were translated were seen before that.
    :ivar again: a datagram that was seen once more at a point, where nothing tells which way it went.
    :ivar errors: what ICMP said of it.
    :ivar answered: when each address was seen answering last.
    :ivar unreturned: how many answers there are no more of that had not come back when later ones came.
    """

    def __init__(self, client: SocketAddress, target: SocketAddress, order: int, section: int) -> None:
        super().__init__()
        self.client, self.target, self.order, self.section = client, target, order, section
        self.endpoints: dict[SocketAddress, None] = {}
        self.peers: dict[SocketAddress, None] = {}
        self.points: dict[Point, None] = {}
        self.odd: list[Datagram] = []
        self.errors: dict[tuple[str, bool], IcmpError] = {}
        self._before: set[Point] = set()
        self._behind: set[Point] = set()
        self.translated: int | None = None
        self.on_the_way: set[Point] = set()
        self.again: Place | None = None
        self.answered: dict[SocketAddress, int] = {}
        self.unreturned = 0
        self._coming: list[tuple[Datagram, Datagram]] = []

    def add(self, datagram: Datagram, time: int, *, from_client: bool) -> Datagram | None:
        """Take a datagram into account that was not seen before; return the question that it answers."""
        question = super().add(datagram, time, from_client=from_client)
        if question is not None:
            self._coming.append((question, datagram))
            if len(self._coming) > _WAITING:
                del self._coming[0]
                self.unreturned += 1
        return question

    def lost(self, last: int | None) -> list[tuple[Datagram, Datagram]]:
        """Return the last questions whose answers were seen, and did not come back to where the question was first.

        Not where an answer was seen at a point that the question did not pass: it may have gone another way.

        :param last: when the capture ended, nanoseconds: what was seen right before that may have come.
        """
        lost = [pair for pair in self._coming if _is_lost(*pair)]
        return lost if any(last is None or not _at_end(*pair, last) for pair in lost) else []

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
        if not datagram.from_client:
            self.answered[packet.source] = place.time
            self._coming = [pair for pair in self._coming if pair[1] is not datagram or _is_lost(*pair)]

    def pass_by(self, point: Point, *, is_asked: bool) -> None:
        """Take it that all datagrams so far were seen at one point, as the client knows them.

        :param is_asked: there are questions among them.
        """
        self.points.setdefault(point)
        if is_asked:
            self._before.add(point)

    def client_s_side(self) -> set[Point]:
        """Return the points at which questions are seen as the client asks them, and in no other form."""
        return self._before - self._behind

    def _keep(self, datagram: Datagram) -> None:
        if len(self.odd) < _KEPT and all(one is not datagram for one in self.odd):
            self.odd.append(datagram)

    def is_untranslated(self, datagram: Datagram) -> bool:
        """Check whether a question was seen in its first form alone."""
        return datagram.destinations == {self.target} and all(one[2] == self.client for one in datagram.forms)


def way_of(frame: Frame) -> bool | bytes | None:
    """Return which way a frame went: by what the capture says, or by its receiver on an Ethernet."""
    if frame.outgoing is None and frame.at in BEHIND_ETHERNET:
        return frame.data[:6]
    return frame.outgoing


def _is_lost(question: Datagram, answer: Datagram) -> bool:
    """Check whether an answer was seen nowhere but where its question went on to from where it was first."""
    asked, answered = {form[0] for form in question.forms}, {form[0] for form in answer.forms}
    return answered <= asked and question.forms[0][0] not in answered


def _at_end(question: Datagram, answer: Datagram, last: int) -> bool:
    """Check whether a capture ended before an answer can have come to all points."""
    took = abs(question.places[-1].time - question.places[0].time)
    return answer.places[-1].time > last - max(_LEAST, _AS_LONG * took)


def _alike(one: bytes, other: bytes) -> int:
    """Return how many bytes two have in common from their beginning on."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
