# SPDX-License-Identifier: MIT
"""What was seen in one trial, in order and as plain data. Verdicts and reports are made from it, anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from lab.evidence.entry import Entry, EntryEvent
from lab.evidence.judgement import Judged
from lab.evidence.packet import ICMP, ICMPV6, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.evidence.walk import Role, Walk
from lab.evidence.window import Prediction

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

#: Conntrack's counters of packets that it dropped, of entries that it dropped for others, and of entries that clashed
#: (struct ip_conntrack_stat, include/linux/netfilter/nf_conntrack_common.h).
LOSING: Final = ("insert_failed", "drop", "early_drop", "clash_resolve", "chain_toolong")

#: In seconds: half of the shortest life of an entry, which is that of a datagram's that lost a clash
#: (nf_ct_resolve_clash_harder, net/netfilter/nf_conntrack_core.c). After each accepted RST an entry has 10 s left,
#: whatever its state (TCP_CONNTRACK_CLOSE, nf_conntrack_proto_tcp.c), and the lab's own bounds are 10 s.
_TOO_LONG: Final = 0.5

# Destination unreachable: RFC 792; RFC 4443, 3.1.
_UNREACHABLE: Final = {ICMP: 3, ICMPV6: 1}


@dataclass(frozen=True)
class SocketEnd:
    """How one socket of the connection ended.

    :param error: the name of its errno, such as ECONNRESET; None where it never failed.
    :param intact: whether all bytes that it received are the bytes that were sent, in order.
    """

    host: str
    address: SocketAddress
    error: str | None
    sent: int
    received: int
    intact: bool


@dataclass(frozen=True)
class Try:
    """One attempt of a client to get what it wants, on a connection of its own.

    :param error: what ended the client's socket; None where nothing did.
    :param sent: bytes that the server sent.
    :param received: bytes that the client got of them.
    :param intact: whether these are the bytes that were sent, in order.
    """

    error: str | None
    sent: int
    received: int
    intact: bool


@dataclass(frozen=True)
class Injected:
    """The packet that is to disturb the connection.

    :param host: whose link it was put on.
    :param receiver: the host that it is for.
    :param forged: whether the lab made it; a real one was sent by the host's own stack.
    :param offset: its sequence number minus the next one that its sender would send; None where that is a script's
        matter, or it has no number.
    :param window: the largest window that the receiver had offered, in bytes.
    :param exact: the acknowledgement that is exact: the next number that its sender waits for.
    :param predictions: what the model expects of the kernel, by node: each judges by what it saw itself. None of a
        node that has no entry, or where neither the window nor the state of the entry decides.
    :param nodes: the nodes on its way, in their order.
    """

    host: str
    receiver: str
    packet: Packet
    forged: bool
    offset: int | None
    window: int
    exact: int
    predictions: dict[str, Prediction] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exchange:
    """One question that a client sent by datagram, and what came of it.

    :param question: as it left the client.
    :param reached: the hosts whose sockets got it.
    :param answer: as it came to the client's interface; None where none came.
    :param answered: whether the client's socket took the answer.
    :param error: the name of the errno that its socket had instead, such as ECONNREFUSED.
    :param unrouted: see :class:`Timeline`.
    """

    client: str
    target: SocketAddress
    question: Packet
    reached: tuple[str, ...]
    answer: Packet | None
    answered: bool
    error: str | None
    unrouted: str = ""


@dataclass(frozen=True)
class Check:
    """Something that a case holds against what was seen.

    :param words: what it expects.
    :param seen: what was so instead.
    """

    words: str
    holds: bool
    seen: str = ""


@dataclass(frozen=True)
class Counters:
    """What the nodes had counted at the end.

    :param states: how many packets had each ct state, as the lab's rules counted them.
    :param statistics: as ``conntrack -S``, summed over the processors.
    :param dropped: packets that rules dropped for being INVALID; None where the node has no such rule.
    :param other_drops: the other rules that dropped or rejected something, each as the node lists it with its counter;
        read only where a packet did not come to its end.
    """

    states: dict[str, int]
    statistics: dict[str, int]
    dropped: int | None
    other_drops: tuple[str, ...] = ()

    @property
    def moved(self) -> tuple[str, ...]:
        """What conntrack counted that loses packets, or may: `conntrack -S` in its own words (conntrack(8))."""
        return tuple(f"{name} {self.statistics[name]:,}" for name in LOSING if self.statistics.get(name))

    @property
    def told(self) -> tuple[str, ...]:
        """The same as a sentence of evidence; none where nothing moved."""
        return (f"conntrack's counters: {', '.join(self.moved)}",) if self.moved else ()


@dataclass(frozen=True)
class Download:
    """How one client's download ended.

    :param exit_code: of curl: 0 for a whole one, 28 for one that stood still, 56 for a connection that was reset.
    :param words: what curl said to it.
    :param received: bytes.
    :param intact: whether these are the bytes that the server has at that place.
    """

    exit_code: int
    words: str
    received: int
    intact: bool


@dataclass(frozen=True)
class Load:
    """Many downloads at once, and what the kernels counted of them.

    :param size: of one download, in bytes.
    :param seconds: from the first one's beginning to the last one's end.
    :param held: data packets that the router held back.
    :param late: data segments that came to the client when it had their bytes already (TCPDSACKOldSent).
    :param resets: connections that were reset while they lived, by host (EstabResets).
    """

    size: int
    downloads: tuple[Download, ...]
    seconds: float
    held: int
    late: int
    resets: dict[str, int]


@dataclass(frozen=True)
class Timeline:
    """One trial's evidence: what every kind of trial has.

    :param node: the node whose conntrack is followed; others may judge as well.
    :param target: the address that the client talks to: the VIP, or the pod's own.
    :param peer_address: the client's address as the server knows it: another one where a node masquerades.
    :param entry: the connection's conntrack entry at the end, None where it was gone.
    :param refusal: how it is known that there never was a connection; None where there was one.
    :param complete: what was to be said went through to the last byte.
    :param bystanders: hosts that have no role and do not forward: what comes to them went astray.
    :param checks: what the case held against what was seen.
    :param findings: what kernels may differ in, in words that are the same where they do not.
    :param faults: what is wrong with the instruments themselves; not empty means that nothing can be concluded.
    :param standstill: how it is known that the connection neither went on nor ended: in a few words, and then whatever
        more there is to tell; empty where it did.
    :param trace: where the segment was seen last for which there was no connection; empty where that is not known.
    :param held_up: for how long the trial was kept from running, in seconds, while all time-outs went on.
    :param walks: of a trial that is traced, the walks of its packets through the nodes' rules, node by node.
    :param untraced: in sentences, what of them could not be told.
    :param unrouted: why the host to which the judged packet came last sent it nowhere, by its kernel's own word.
    :param left_out: how many sightings there were, where they were not kept; what was judged, and the entries' events,
        are left out with them.
    :param kind: of the trial: which of the classes below holds its evidence.
    """

    client: str
    node: str
    server: str
    target: SocketAddress
    client_address: SocketAddress
    server_address: SocketAddress
    peer_address: SocketAddress
    sightings: tuple[Sighting, ...]
    judged: tuple[Judged, ...]
    entry_events: tuple[EntryEvent, ...]
    entry: Entry | None
    counters: Counters
    refusal: str | None
    complete: bool
    bystanders: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    findings: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    standstill: tuple[str, ...] = ()
    trace: str = ""
    held_up: float = 0.0
    walks: tuple[Walk, ...] = ()
    untraced: tuple[str, ...] = ()
    unrouted: str = ""
    left_out: int = 0
    kind: str = ""

    @property
    def refused(self) -> tuple[str, ...]:
        """How it is known that there was no connection: in a few words, where it ended, and which rules counted."""
        head = f"no connection: {self.refusal or 'nobody tried'}"
        return (head, *filter(None, (self.trace,)), *self.counters.other_drops)

    @property
    def disturbed(self) -> str:
        """Why what was seen may be the clock's doing and not that of what is tried; empty where it is not."""
        if self.held_up < _TOO_LONG:
            return ""
        return f"the machine kept the trial from running for {self.held_up:.1f} s, while all time-outs went on"

    def judgement_of(self, packet: Packet) -> Judged | None:
        """Return what conntrack made of a packet: at the node, or where it came to another one only, there.

        None where it came to no node.
        """
        words = [judged for judged in self.judged if judged.packet.likeness == packet.likeness]
        return next((judged for judged in words if judged.host == self.node), words[0] if words else None)

    def judged_at(self, node: str, packet: Packet) -> Judged | None:
        """Return what a node's conntrack made of a packet, None where it did not come there."""
        likeness = packet.likeness
        return next((one for one in self.judged if one.host == node and one.packet.likeness == likeness), None)

    @property
    def judged_walks(self) -> tuple[Walk, ...]:
        """The walks of the packet that the trial is about, node by node."""
        return tuple(walk for walk in self.walks if walk.role is Role.JUDGED)


@dataclass(frozen=True)
class PacketTimeline(Timeline):
    """The evidence of a trial that is about one packet.

    :param injected: that packet; None where it did not come so far.
    :param first_numbers: each side's initial sequence number.
    """

    injected: Injected | None = None
    first_numbers: dict[str, int] = field(default_factory=dict)
    kind: str = "packet"


@dataclass(frozen=True)
class ConnectionTimeline(PacketTimeline):
    """The evidence of a trial in which two sockets are connected, and one packet disturbs them.

    :param ends: the sockets of the connection; empty where there was none.
    :param is_somebodys: whether these are not the lab's own, so that nobody knows what was to be said.
    """

    ends: tuple[SocketEnd, ...] = ()
    is_somebodys: bool = False
    kind: str = "connection"

    def end_of(self, host: str) -> SocketEnd | None:
        """Return how the socket of ``host`` ended, None where it never was."""
        return next((end for end in self.ends if end.host == host), None)


@dataclass(frozen=True)
class RetryingTimeline(ConnectionTimeline):
    """The evidence of a trial whose client begins again.

    :param tries: its attempts, in their order.
    :param wanted: bytes that it asks for.
    """

    tries: tuple[Try, ...] = ()
    wanted: int = 0
    kind: str = "retrying"


@dataclass(frozen=True)
class DatagramsTimeline(Timeline):
    """The evidence of a trial of questions and answers by datagram.

    :param exchanges: in the order in which they were asked.
    """

    exchanges: tuple[Exchange, ...] = ()
    kind: str = "datagrams"


@dataclass(frozen=True)
class DownloadsTimeline(Timeline):
    """The evidence of many downloads at once: packets are counted, and none is sighted.

    Judged are those that are INVALID or ignored.

    :param load: the downloads; None where there was no connection.
    """

    load: Load | None = None
    kind: str = "downloads"


KINDS: Final[dict[str, type[Timeline]]] = {
    kind.kind: kind
    for kind in (PacketTimeline, ConnectionTimeline, RetryingTimeline, DatagramsTimeline, DownloadsTimeline)
}


def kind_of(timeline: object) -> str:
    """Return which of :data:`KINDS` a timeline is, or one that was read from a file.

    Files of earlier versions do not say: all of them had the fields of every kind.
    """
    if isinstance(timeline, Timeline):
        return timeline.kind
    if not isinstance(timeline, dict):
        return ""
    fields = {"load": "downloads", "exchanges": "datagrams", "tries": "retrying"}
    found = (kind for name, kind in fields.items() if timeline.get(name))
    return str(timeline.get("kind") or next(found, "connection"))


class _ByKind:
    """Tells pydantic, which only those load who read or write a file, of which class a timeline is."""

    def __get_pydantic_core_schema__(self, _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        kinds = {name: handler.generate_schema(kind) for name, kind in KINDS.items()}
        return core_schema.tagged_union_schema(kinds, discriminator=kind_of)


#: A timeline as a field of what is saved.
SavedTimeline: TypeAlias = Annotated[Timeline, _ByKind()]


def end_of_way(packet: Packet, sightings: Iterable[Sighting]) -> Sighting | None:
    """Return where a packet was seen last, sent on or come to; None where no capture saw it."""
    seen = [sighting for sighting in sightings if sighting.packet.likeness == packet.likeness]
    return max(seen, key=lambda sighting: sighting.time, default=None)


def unreachable(injected: Injected, sightings: Iterable[Sighting]) -> Sighting | None:
    """Return the ICMP error that told the sender of a packet that its destination has no way, None where none came."""
    quoted = (injected.packet.source, injected.packet.destination)
    return next(
        (
            sighting
            for sighting in sightings
            if sighting.host == injected.host
            and not sighting.outgoing
            and sighting.packet.icmp is not None
            and sighting.packet.icmp.kind == _UNREACHABLE.get(sighting.packet.protocol)
            and sighting.packet.icmp.quoted == quoted
        ),
        None,
    )
