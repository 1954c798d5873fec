# SPDX-License-Identifier: MIT
"""The segments of a connection in a capture, each once and in order, as they can be sent again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from lab.capture.connection import COPIED
from lab.capture.explanation import Explained, Place
from lab.capture.frames import Frame
from lab.capture.judging import Conntrack, Word
from lab.capture.lane import Stream
from lab.capture.order import in_order
from lab.capture.reader import Reader
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, RST, SYN, TCP, Packet, SocketAddress
from lab.vocabulary import Behaviour

#: Segments of a connection, and connections, that are sent again.
MOST: Final = 10_000
MOST_CONNECTIONS: Final = 20
_RECENT: Final = 64  # segments whose copies are looked for
_EXTENSIONS: Final = frozenset({0, 43, 60})  # RFC 8200, 4


@dataclass(frozen=True)
class Segment:
    """One segment.

    :param direct: the client sent it to the endpoint's own address, past the VIP.
    :param header: of TCP as captured, behind the ports; its checksum is to be computed anew.
    :param length: of its payload in bytes; what was in it is of no interest to conntrack.
    :param is_corrupt: its checksum was wrong.
    """

    packet: Packet
    from_client: bool
    direct: bool
    header: bytes
    length: int
    is_corrupt: bool
    place: Place


@dataclass(frozen=True)
class Script:
    """The segments of a connection, or of several of the same addresses, one after the other.

    :param is_cut: there are more of them.
    """

    client: SocketAddress
    target: SocketAddress
    segments: tuple[Segment, ...]
    is_cut: bool

    @property
    def begins(self) -> bool:
        """Whether it begins with the client's SYN: what a node knows of it, it knows from there on."""
        first = self.segments[0].packet.tcp if self.segments else None
        return first is not None and first.flags & (SYN | ACK | RST) == SYN and self.segments[0].from_client

    def expected(self, behaviour: Behaviour) -> list[Word | None]:
        """Return what the model makes of each on a kernel of a behaviour; None of what is of no entry."""
        words: list[Word | None] = []
        conntrack = Conntrack(self.client, behaviour)
        for segment in self.segments:
            if segment.direct:
                words.append(None)
            elif segment.is_corrupt:
                words.append(Word(Judgement.INVALID, "checksum"))
            else:
                words.append(conntrack.judge(segment.packet, from_client=segment.from_client))
        return words


class _Collected:
    """What is collected of one connection."""

    def __init__(self, one: Explained) -> None:
        self.one = one
        self.segments: list[Segment] = []
        self.is_cut = False
        self._before: set[Stream] = set()
        self._corrupt: set[Place] = set()
        self._recent: OrderedDict[tuple[object, ...], tuple[int, set[object]]] = OrderedDict()

    def add(self, one: Explained) -> None:
        """Take another connection of the same addresses into account."""
        # Many are captured before a network card has computed their checksums: they are wrong where one leaked for it.
        self._corrupt |= {finding.packets[0] for finding in one.findings if finding.kind == "checksum"}

    def see(self, frame: Frame, file: str) -> None:
        packet, one = frame.packet, self.one
        tcp = packet.tcp
        assert tcp is not None
        from_client = packet.source in (one.client, one.peer)
        key = (
            *(from_client, tcp.sequence, tcp.acknowledgement, tcp.flags, packet.payload_length, tcp.window),
            *(packet.identification, tcp.timestamps),
        )
        stream: Stream = (file, frame.interface, frame.outgoing)
        if from_client and packet.destination == one.target != one.endpoint:
            self._before.add(stream)
        form = (stream, packet.source, packet.destination)
        begun, forms = self._recent.get(key, (0, set[object]()))
        # As lab.capture.connection tells copies from what is sent again.
        if forms and not (form in forms and (frame.time - begun > COPIED or not packet.identification)):
            forms.add(form)
            return
        self._recent[key] = (frame.time, {form})
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        if len(self.segments) == MOST:
            self.is_cut = True
            return
        # Behind the node the client's packets go there as well, and translated ones look alike.
        direct = from_client and packet.destination == one.endpoint and stream in self._before
        self.segments.append(_segment(frame, file, self._corrupt, from_client=from_client, direct=direct))


def scripts(readers: Sequence[Reader], wanted: Iterable[Explained]) -> list[Script]:
    """Return the segments of connections from captures that are read once more, those of the same addresses together.

    :raises InputError: as when they were read first.
    """
    collected: dict[tuple[int, SocketAddress, SocketAddress], _Collected] = {}
    flows: dict[tuple[int, SocketAddress, SocketAddress], _Collected] = {}
    for one in wanted:
        if one.protocol != "TCP":
            continue
        own = collected.setdefault((one.section, one.client, one.target), _Collected(one))
        own.add(one)
        endpoint = one.endpoint or one.target
        for ends in ((one.client, one.target), (one.peer, endpoint), (one.client, endpoint)):
            flows[one.section, ends[0], ends[1]] = flows[one.section, ends[1], ends[0]] = own
    for frame, file in in_order(readers, None, []):
        found = flows.get((frame.section, frame.packet.source, frame.packet.destination))
        if found is not None and frame.packet.tcp is not None:
            found.see(frame, file)
    return [Script(one.one.client, one.one.target, tuple(one.segments), one.is_cut) for one in collected.values()]


def _segment(frame: Frame, file: str, corrupt: Collection[Place], *, from_client: bool, direct: bool) -> Segment:
    packet, data, at = frame.packet, frame.data, frame.at
    transport = _transport(data, at)
    header = data[transport : transport + (data[transport + 12] >> 4) * 4]
    header += bytes(-len(header) % 4)  # options that a snaplen has cut
    header = header[4:12] + bytes([len(header) // 4 << 4 | header[12] & 1]) + header[13:]
    place = Place(file, frame.number, frame.time, frame.interface)
    return Segment(packet, from_client, direct, header, packet.payload_length, place in corrupt, place)


def _transport(data: bytes, at: int) -> int:
    """Return where TCP's header begins in a packet whose IP header begins at a byte (RFC 791, RFC 8200)."""
    if data[at] >> 4 == 4:
        return at + (data[at] & 15) * 4
    protocol, transport = data[at + 6], at + 40
    while protocol in _EXTENSIONS and protocol != TCP:
        protocol, transport = data[transport], transport + 8 + data[transport + 1] * 8
    return transport
