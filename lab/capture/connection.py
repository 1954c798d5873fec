# SPDX-License-Identifier: MIT
"""One connection in a capture: its packets, each once, and where each was seen in which form."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lab.capture.black_hole import Sizes
from lab.capture.early import Early
from lab.capture.explanation import Place, Point
from lab.capture.forms import Forms
from lab.capture.frames import Frame
from lab.capture.gaps import Gaps
from lab.capture.headers import checksum_is_wrong, is_short
from lab.capture.icmp import IcmpError
from lab.capture.idle import Idle, Idleness
from lab.capture.judging import FINE, Conntrack, Word
from lab.capture.lane import RECENT, Kept, Lane, Stream
from lab.capture.quick import QuickWindow
from lab.capture.several import Repeats, Several
from lab.capture.sysctls import DEFAULTS, Sysctls
from lab.capture.ways import Ways
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, FIN, RST, SYN, Packet, SocketAddress
from lab.vocabulary import Behaviour

COPIED: Final = 1_000_000  # ns; a node takes microseconds from one interface to the other
_KEPT: Final = 20  # packets of a connection that are kept for being out of the ordinary, of each kind


@dataclass(slots=True)
class Segment:
    """One packet of a connection, however often it was captured.

    :ivar exact: its number is the one that its receiver waits for, by what came there before (RFC 9293, 3.4).
    :ivar direct: sent to the endpoint's own address by a client that asked the VIP: it belongs to no entry.
    :ivar late: the connection was over already, and all acknowledged.
    :ivar opening: the handshake was not finished, whose beginning was seen.
    :ivar idle: for how long nothing was seen before it, where that may have been too long for the entry.
    :ivar is_corrupt: leaked, and its checksum is wrong.
    :ivar is_short: leaked, and its TCP header says that it is longer than the packet.
    :ivar midway: of a connection whose beginning is not in the capture, so that no state and no window is known.
    :ivar guessed: its sequence number was not printed.
    :ivar again: what it carries was sent before, or sent again.
    :ivar at_end: the capture ended before all copies of it can have come.
    :ivar places: where it was seen, as it came.
    :ivar forms: with which addresses it was seen where.
    :ivar translated: seen in the form that its receiver knows.
    :ivar leaked: seen untranslated behind the node.
    """

    packet: Packet
    from_client: bool
    word: Word = FINE
    direct: bool = False
    exact: bool = False
    late: bool = False
    opening: bool = False
    idle: Idle | None = None
    is_corrupt: bool = False
    is_short: bool = False
    guessed: bool = False
    again: bool = False
    midway: bool = False
    at_end: bool = False
    places: list[Place] = field(default_factory=list)
    forms: list[tuple[Stream, SocketAddress, SocketAddress]] = field(default_factory=list)
    translated: bool = False
    leaked: Place | None = None

    @property
    def streams(self) -> set[Stream]:
        """Where it was seen."""
        return {stream for stream, _source, _destination in self.forms}

    @property
    def place(self) -> Place:
        """Where it is shown: where it was seen first."""
        return self.places[0]

    @property
    def makes_no_entry(self) -> bool:
        """Whether it leaked as its entry was gone, and is INVALID: what ends a connection begins none (tcp_new)."""
        assert self.packet.tcp is not None
        known = self.word.by or self.midway or self.is_corrupt or self.is_short or self.guessed
        return self.leaked is not None and not known and bool(self.packet.tcp.flags & (FIN | RST))

    @property
    def is_strange_answer(self) -> bool:
        """Whether it answers the client's SYN, and came from an address that the client has not asked."""
        assert self.packet.tcp is not None
        came = self.leaked is not None and not self.translated
        return came and self.opening and not self.from_client and bool(self.packet.tcp.flags & (SYN | RST))


class Connection:
    """A TCP connection, from one or more points.

    :ivar order: its number among the connections of the capture, from their beginnings.
    :ivar target: whom the client asked.
    :ivar endpoint: whom that became; None until a translation was seen.
    :ivar turned: by which address the other side knew this one, where that had asked before, by a VIP.
    :ivar seen: by which points its packets pass, in which form.
    :ivar ways: where its packets pass by; ``asked``: when its client asked, by the last SYN.
    :ivar lost: what did not come as far as it should, by side; known at the end.
    """

    def __init__(
        self,
        client: SocketAddress,
        target: SocketAddress,
        section: int,
        behaviour: Behaviour,
        order: int,
        sysctls: Sysctls = DEFAULTS,
    ) -> None:
        self.client = self.peer = client
        self.target = target
        self.endpoint: SocketAddress | None = None
        self.section, self.order = section, order
        self.conntrack = Conntrack(client, behaviour, sysctls)
        self.gaps = Gaps(self.conntrack)
        self.first: Packet | None = None
        self.count, self.asked, self.begins = 0, 0, False
        self.lanes: dict[bool, Lane] = {}
        self.kept: deque[Kept] = deque(maxlen=RECENT)
        self.points: dict[Point, None] = {}
        self.errors: dict[tuple[str, bool], IcmpError] = {}
        self.odd: list[Segment] = []
        self.resets: list[Segment] = []
        self.lost: dict[bool, Several] = {}
        self.repeats, self.sizes = Repeats(), Sizes()
        self.ways, self.idleness = Ways(), Idleness(sysctls)
        self.turned: SocketAddress | None = None
        self.seen = Forms()
        self._next: dict[bool, int] = {}
        self._early = Early()
        self._recent: OrderedDict[tuple[object, ...], Segment] = OrderedDict()

    @property
    def is_translated(self) -> bool:
        """Whether client and endpoint know each other by other addresses than their own."""
        return self.endpoint is not None

    def windows_at_one_point(self) -> QuickWindow | None:
        """Return both sides' windows, where it is established, and captured at one point and in one form alone."""
        is_at_one = self.endpoint is None and len(self.points) < 2 and not self.seen.is_of_several
        return self.conntrack.windows if is_at_one and not (self.conntrack.closed or self.gaps.in_doubt) else None

    def open_lane(self, lane: Lane) -> None:
        """Have plain segments taken, where it is known which one comes next."""
        side = lane.from_client
        acknowledged, awaited = self.conntrack.awaited(from_client=not side), self._next.get(side)
        ahead = 1 if awaited is None else distance(lane.sender.end, awaited)
        if ahead > 0 or acknowledged is None:
            lane.close()
            return
        lane.acknowledged, lane.follows, lane.begins = acknowledged, ahead == 0, self.begins
        lane.home[lane.key] = lane

    def settle(self) -> None:
        """Take into account the plain segments that were taken."""
        self.repeats.went_on(self.lanes, self.kept)
        for side, lane in self.lanes.items():
            if lane.count:
                self.count += lane.count
                lane.count = 0
                self.conntrack.acknowledge(lane.acknowledged, from_client=side)
                if lane.follows:
                    self._next[side] = lane.sender.end
        self.went_on(self.kept)
        for one in self.kept:
            packet, lane = one.packet, one.lane
            place = Place(lane.stream[0], one.number, one.time, lane.stream[1])
            form = (lane.stream, packet.source, packet.destination)
            segment = Segment(packet, lane.from_client, places=[place], forms=[form])
            self._add(segment)
            self.sizes.see(segment, self.conntrack)
        self.kept.clear()

    def went_on(self, kept: Sequence[Kept]) -> None:
        """Take it that plain segments came, which the windows know of already."""
        if kept:
            self.idleness.see(max(one.time for one in kept))
            self.conntrack.went_on(kept[-1].packet, from_client=kept[-1].lane.from_client)

    def _add(self, segment: Segment) -> None:
        self._recent[_likeness(segment.packet, segment.from_client)] = segment
        if len(self._recent) > RECENT:
            self._pass(self._recent.popitem(last=False)[1])

    def end(self, last: int | None = None) -> None:
        """Take it that no more copies of any packet come.

        :param last: when the capture ended, if that is why: of the last packets it has not all copies.
        """
        self.went_on(self.kept)
        self.kept.clear()  # they were seen at one point alone, as all before them
        self.settle()
        translated = {stream[:2] for stream in self.seen.behind[True] | self.seen.behind[False]}
        for segment, place in self._early.leaks(translated, self.resets):
            segment.leaked = place
            self._keep(segment)
        if last is not None:
            self.ways.cut(list(self._recent.values()), last, least=COPIED)
        while self._recent:
            self._pass(self._recent.popitem(last=False)[1])
        self.lost = self.ways.lost()

    def _pass(self, segment: Segment) -> None:
        plain = segment.word is FINE and segment.leaked is None and not segment.direct
        self.sizes.passed(segment, is_missing=self.ways.is_missing(segment))
        self.ways.take(segment, self.conntrack.awaited(from_client=segment.from_client), is_plain=plain)

    def translate(self, packet: Packet) -> None:
        """Take it that this first packet is the connection's, as the endpoint sees it."""
        self.seen.place_all()
        self.endpoint, self.peer = packet.destination, packet.source

    def asked_at(self, target: SocketAddress) -> None:
        """Take it that the client asked another address: all packets so far were seen as the endpoint knows them."""
        self.endpoint, self.target, self.peer = self.target, target, self.client
        self.seen.place_all(by_client=False)

    def has(self, packet: Packet) -> bool:
        """Check whether a packet was seen just before, at another point or in another form."""
        self.settle()
        return _likeness(packet, packet.source == self.client) in self._recent

    def stranger(self, address: SocketAddress) -> None:
        """Take it that an address which the client does not know is the endpoint's, by what came from there.

        Then everything that the client got so far was translated.
        """
        self.endpoint = address
        self.seen.place_all()

    def is_from_client(self, packet: Packet) -> bool:
        """Check which side a packet is from."""
        return packet.source in (self.client, self.peer)

    def come_after(self, before: Connection, time: int) -> None:
        """Take it that another one had these addresses, whose entry this one finds if it lives, by its time in ns."""
        before.settle()
        if not self.idleness.outlives(before.conntrack, time - (before.idleness.last or 0)):
            return
        self.conntrack = before.conntrack.passed_on(self.client)
        self.gaps = Gaps(self.conntrack)
        if self.client == before.endpoint != before.target:
            self.turned = before.target

    def see(self, frame: Frame, place: Place, stream: Stream) -> None:
        """Take one packet at one point into account."""
        packet = frame.packet
        self.points.setdefault((place.file, frame.interface))
        from_client = self.is_from_client(packet)
        segment = self._recent.get(_likeness(packet, from_client))
        # What one point has twice is sent again, unless it says by its IP header that it is the same (RFC 6864), and
        # comes while copies do: of what is not cut into fragments the number there means little.
        form = (stream, packet.source, packet.destination)
        is_old = segment is not None and place.time - segment.places[0].time > COPIED
        if segment is None or (form in segment.forms and (is_old or not packet.identification)):
            segment = Segment(packet, from_client)
            self._add(segment)
            self._begin(segment, stream, place)
            if from_client and not self.conntrack.answered:
                self._early.asks(stream, frame)
        elif form not in segment.forms and stream in segment.streams:
            self.seen.mixed.add(stream)
        segment.places.append(place)
        segment.forms.append(form)
        if len(segment.places) == 1 and segment.word is FINE and not segment.direct:
            self.sizes.see(segment, self.conntrack)
        self._place(segment, frame, stream, place)

    def _begin(self, segment: Segment, stream: Stream, place: Place) -> None:
        """Judge a packet that was not seen before."""
        packet, from_client = segment.packet, segment.from_client
        tcp = packet.tcp
        assert tcp is not None
        self.count += 1
        self.first = self.first or packet
        self.begins = self.begins or tcp.flags & (SYN | ACK) == SYN
        asked_directly = from_client and packet.destination == self.endpoint != self.target
        segment.direct = asked_directly and stream in self.seen.before[True]
        segment.late = self.conntrack.closed and not self.conntrack.is_unacknowledged
        segment.idle = self.idleness.before(place.time, self.conntrack, from_client=from_client)
        segment.opening = self.begins and not self.conntrack.established
        segment.exact = tcp.sequence in (self._next.get(from_client), self.conntrack.awaited(from_client=from_client))
        if not segment.direct:
            for right in self.gaps.behind(packet, self._next, from_client=from_client):
                self.odd = [one for one in self.odd if one is not right]
            _follow(self._next, packet, from_client=from_client)
            sent = self.conntrack.sent(by_client=from_client)
            if self.repeats.take(packet, place, sent, from_client=from_client):
                _mark(self._recent.values(), segment)
            judged = replace(packet, source=self.client) if from_client and packet.source != self.client else packet
            was_established = self.conntrack.established
            segment.word = self.conntrack.judge(judged, from_client=from_client)
            if was_established and segment.word is FINE and tcp.flags & (SYN | ACK) == SYN | ACK:
                self._next = {from_client: packet.end, not from_client: tcp.acknowledgement}  # both began anew
            self.gaps.doubt(segment)
        segment.midway = not self.begins
        segment.word = FINE if segment.midway and segment.word.by in ("state", "new") else segment.word
        if segment.word is FINE and tcp.flags & SYN:
            self.ways.first.setdefault(from_client, segment)
        if from_client and tcp.flags & (SYN | ACK) == SYN:
            self.asked = place.time
        if tcp.flags & RST and len(self.resets) < _KEPT:
            self.resets.append(segment)
        if segment.word.judgement is not Judgement.ACCEPTED:
            self._keep(segment)

    def _keep(self, segment: Segment) -> None:
        if len(self.odd) < _KEPT and all(segment is not one for one in self.odd):
            self.odd.append(segment)

    def _place(self, segment: Segment, frame: Frame, stream: Stream, place: Place) -> None:
        """Take into account in which form a packet was seen where."""
        side = segment.from_client
        if self.endpoint is None:
            self.seen.unplaced[side].add(stream)
            return
        if segment.direct:
            return
        ends = (frame.packet.source, frame.packet.destination)
        behind = (self.peer, self.endpoint) if side else (self.target, self.client)
        if ends == behind:
            self.seen.behind[side].add(stream)
            segment.translated = True
            return
        if stream in self.seen.behind[side] - self.seen.mixed:
            if segment.leaked is None:
                segment.leaked = place
                segment.is_corrupt = checksum_is_wrong(frame.data, frame.at)
                segment.is_short = is_short(frame.data, frame.at)
            self._keep(segment)
        else:
            self.seen.before[side].add(stream)
            if not side and _meets(stream, self.seen.before[True]):
                self._early.add(segment, stream, place, frame)

    def client_s_side(self) -> set[Point]:
        """Return the points at which packets of the client are seen as it knows them, and in no other form."""
        return self.seen.client_s_side if self.is_translated else set(self.points)


def _follow(follows: dict[bool, int], packet: Packet, *, from_client: bool) -> None:
    """Take into account what the receiver has got of a side without a gap, whatever conntrack makes of it."""
    assert packet.tcp is not None
    awaited = follows.get(from_client)
    if packet.tcp.flags & RST:
        return
    if awaited is None or (distance(packet.tcp.sequence, awaited) >= 0 and distance(awaited, packet.end) > 0):
        follows[from_client] = packet.end


def _meets(stream: Stream, others: Iterable[Stream]) -> bool:
    """Check whether packets pass one of the others' points the other way.

    Where the client's are seen before their translation there, and nothing translated, the server's have leaked.
    """
    return any(one[:2] == stream[:2] and (one[2] is None or one[2] is not stream[2]) for one in others)


def _mark(recent: Iterable[Segment], again: Segment) -> None:
    """Take it that what a packet carries was sent before."""
    for one in recent:
        if one.from_client == again.from_client and _overlap(one.packet, again.packet):
            one.again = True


def _overlap(one: Packet, other: Packet) -> bool:
    """Check whether two packets of one side have bytes in common."""
    assert one.tcp is not None
    assert other.tcp is not None
    return distance(one.tcp.sequence, other.end) > 0 and distance(other.tcp.sequence, one.end) > 0


def _likeness(packet: Packet, from_client: bool) -> tuple[object, ...]:
    """Return what the copies of one packet agree in."""
    tcp = packet.tcp
    assert tcp is not None
    return (
        *(from_client, tcp.sequence, tcp.acknowledgement, tcp.flags, packet.payload_length, tcp.window),
        *(packet.identification, tcp.timestamps),
    )
