# SPDX-License-Identifier: MIT
"""ICMP errors in a capture: what they say, and about whose packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from lab.capture.explanation import Finding, Place, Point
from lab.capture.frames import Frame
from lab.capture.headers import quoted_ends
from lab.capture.naming import Naming
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ICMPV6, Packet, SocketAddress

#: What type and code mean (RFC 792, RFC 1191, RFC 1812, 5.2.7.1).
_IPV4: Final = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 9): "network prohibited",
    (3, 10): "host prohibited",
    (3, 13): "prohibited",
    (11, 0): "time to live exceeded",
    (11, 1): "not all fragments came",
}
#: The same of RFC 4443.
_IPV6: Final = {
    (1, 0): "no route",
    (1, 1): "prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
    (3, 1): "not all fragments came",
}
_SHOWN: Final = 5  # packets of one kind
_TOO_BIG: Final = ("fragmentation needed", "packet too big")


@dataclass(slots=True)
class IcmpError:
    """An ICMP error, however often it was captured.

    :ivar about: where the packet that it quotes went to, as that was told last.
    :ivar for_client: the packet that it quotes is the client's.
    :ivar is_translated: it was seen telling so in two ways.
    :ivar mtu: in bytes; 0 where it tells none.
    """

    words: str
    source: str
    about: SocketAddress
    for_client: bool = True
    mtu: int = 0
    is_translated: bool = False
    places: list[Place] = field(default_factory=list)
    points: set[Point] = field(default_factory=set)
    leaked: Place | None = None

    @property
    def is_too_big(self) -> bool:
        """Whether it is about a packet that some link cannot carry."""
        return self.words in _TOO_BIG

    @property
    def is_refusal(self) -> bool:
        """Whether nobody is there."""
        return self.words not in _TOO_BIG and "exceeded" not in self.words


def _read(frame: Frame, about: SocketAddress, *, for_client: bool) -> IcmpError:
    """Return what a frame with an ICMP error says."""
    packet = frame.packet
    icmp = packet.icmp
    assert icmp is not None
    is_ipv6 = packet.protocol == ICMPV6
    kind = (icmp.kind, icmp.code)
    words = (_IPV6 if is_ipv6 else _IPV4).get(kind, f"ICMP type {icmp.kind}, code {icmp.code}")
    mtu = 0
    if words in _TOO_BIG:
        header = frame.at + (40 if is_ipv6 else (frame.data[frame.at] & 15) * 4)
        mtu = int.from_bytes(frame.data[header + (4 if is_ipv6 else 6) : header + 8], "big")
    return IcmpError(words, packet.source.address, about, for_client, mtu)


class Owner(Protocol):
    """Whoever's packets an error may be about: a connection, or an exchange of datagrams."""

    client: SocketAddress
    target: SocketAddress
    errors: dict[tuple[str, bool], IcmpError]

    def is_from_client(self, packet: Packet) -> bool:
        """Check which side a packet is from."""

    def client_s_side(self) -> set[Point]:
        """Return the points at which packets are seen as the client knows them, and in no other form."""


def take(owner: Owner, frame: Frame, file: str) -> None:
    """Take it that an error is about somebody's packets. One of each kind is kept, with all of its places."""
    quoted = quoted_ends(frame.data, frame.at)
    assert quoted is not None
    said = _read(frame, quoted[1], for_client=not owner.is_from_client(replace(frame.packet, source=quoted[1])))
    place = Place(file, frame.number, frame.time, frame.interface)
    error = owner.errors.setdefault((said.words, said.for_client), said)
    error.is_translated = error.is_translated or error.about != said.about
    error.source, error.about = said.source, said.about
    error.points.add((file, frame.interface))
    if len(error.places) <= _SHOWN:
        error.places.append(place)
    strange = quoted[0] == owner.client and quoted[1] != owner.target
    if strange and (file, frame.interface) in owner.client_s_side():
        error.leaked = error.leaked or place


def findings(owner: Owner, named: Naming) -> Iterator[Finding]:
    """Yield what errors tell of somebody's packets."""
    side = owner.client_s_side()
    for error in owner.errors.values():
        mtu = f", whose MTU is {error.mtu:,}" if error.mtu else ""
        places = tuple(error.places[:_SHOWN])
        more = len(error.places) > _SHOWN
        numbers = f"packet{'s' * (len(places) > 1)} {named.all(places, more=more)}"
        words = f"ICMP error, {error.words}: {error.source} says so of a packet to {error.about}{mtu} ({numbers})"
        if error.leaked is not None:
            words += (
                f"; {named.packet(error.leaked)} came to the client's side untranslated: INVALID, as there was no entry"
                f" for what it quotes, and the client, who only knows {owner.target}, takes no notice"
            )
            yield Finding("icmp", words, places, Judgement.INVALID, case="icmp-error-without-entry")
        elif error.is_too_big and error.for_client and side and not side & error.points:
            words += (
                "; it did not come to the client's side: dropped on its way, or lost, and so the client goes on sending"
                " what is too big"
            )
            yield Finding("icmp", words, places, case="path-mtu-filtered")
        else:
            related = Judgement.RELATED if error.is_translated else None
            yield Finding("icmp", words, places, related, case="icmp-error" if error.is_too_big else "")
