# SPDX-License-Identifier: MIT
"""A model of conntrack's window check, in both of its eras: what a node that saw these packets makes of the next one.

Follows ``tcp_in_window`` and ``tcp_init_sender`` of net/netfilter/nf_conntrack_proto_tcp.c: Linux 5.10 for the strict
era, 6.1 for the one that ignores late packets. The four conditions are numbered as in the comment there: I, the
segment starts at or below the highest number that the receiver ever granted; II, it ends no more than a window behind
what the sender sent; III, it acknowledges nothing that was not seen; IV, its acknowledgement is not too old.

A connection whose first packet is no SYN was picked up in its middle (``tcp_new``): the kernel marks both of its sides
liberal, so nothing of it is ever out of the window.

The model is of segments that come to the window check: flags that are illegal are judged elsewhere in the kernel. So
are segments of a handshake of which the node saw one side only: there the table of states decides, before the window
is asked (``tcp_conntracks``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, RST, SEQUENCE_SPACE, SYN, Packet, SocketAddress
from lab.vocabulary import Behaviour

_LEAST_ACK_WINDOW: Final = 66000  # MAXACKWINCONST
#: In which the conditions are tested, where several are broken: the reason that is logged is the first one's.
_ORDERS: Final = {Behaviour.STRICT: ("I", "II", "III", "IV"), Behaviour.IGNORES_LATE: ("I", "III", "II", "IV")}
MOST_SCALE: Final = 14  # RFC 7323, 2.3


@dataclass(frozen=True)
class SideWindow:
    """What the kernel keeps of one side (struct ip_ct_tcp_state), numbers modulo 2^32.

    :param end: the highest end of a segment that this side sent (td_end).
    :param limit: the highest number that the other side granted it (td_maxend).
    :param window: the largest window that it offered, in bytes; 0 before its first segment (td_maxwin).
    :param liberal: nothing that it sends is out of the window, as it was picked up in its middle.
    """

    end: int = 0
    limit: int = 0
    window: int = 0
    scale: int = 0
    scales: bool = False
    selects: bool = False
    liberal: bool = False


#: What the table of states makes of a plain segment, by the entry's state and by whether the side that sent the SYN
#: sent this one too: the columns sSS and sS2 of the rows /*ack*/ in tcp_conntracks, of which sIV is INVALID and sIG
#: ignored (nf_conntrack_proto_tcp.c). In every other state the window is asked.
_BY_STATE: Final = {
    ("SYN_SENT", True): Judgement.INVALID,
    ("SYN_SENT", False): Judgement.IGNORED,
    ("SYN_SENT2", True): Judgement.INVALID,
    ("SYN_SENT2", False): Judgement.IGNORED,
}


@dataclass(frozen=True)
class Prediction:
    """What is expected of one segment.

    :param condition: the one that it breaks, I to IV; empty where it breaks none.
    :param excess: by how many bytes it breaks it; 0 where it breaks none.
    :param state: the entry's, where the table of states decides and no window is asked; else empty.
    :param by_mercy: it is out of the window, and accepted all the same: nothing of it is remembered.
    """

    judgement: Judgement
    condition: str = ""
    excess: int = 0
    state: str = ""
    by_mercy: bool = False

    def __str__(self) -> str:
        if self.state:
            return f"expected {self.judgement} by the table of states: the entry is in {self.state}"
        if not self.condition:
            return f"expected {self.judgement}"
        plural = "byte" if self.excess == 1 else "bytes"
        return f"expected {self.judgement} by condition {self.condition}: {self.excess:,} {plural} out of it"


ACCEPTED: Final = Prediction(Judgement.ACCEPTED)
_LIBERALLY: Final = Prediction(Judgement.ACCEPTED, by_mercy=True)


def by_state(state: str | None, *, from_client: bool) -> Prediction | None:
    """Return what is expected of a plain segment where the state of its entry decides, None where the window does.

    :param state: the entry's, as ``conntrack -L`` names it.
    :param from_client: whether it comes from the side that sent the entry's first packet.
    """
    judgement = _BY_STATE.get((state or "", from_client))
    return Prediction(judgement, state=state or "") if judgement else None


@dataclass(frozen=True)
class Edges:
    """What a segment is held against: the first and the last number that each condition allows, modulo 2^32.

    :param sequence: of its data: not ending before the first (II), not beginning behind the last (I).
    :param acknowledgement: what it may acknowledge: not older than the first (IV), nothing behind the last (III).
    """

    sequence: tuple[int, int]
    acknowledgement: tuple[int, int]


@dataclass(frozen=True)
class Tracker:
    """One connection as a node saw it so far.

    :param client: who sent the first packet of it that the node saw.
    :param liberal: ``nf_conntrack_tcp_be_liberal`` is set.
    """

    client: SocketAddress
    behaviour: Behaviour
    liberal: bool = False
    original: SideWindow = SideWindow()
    reply: SideWindow = SideWindow()

    def judge(self, packet: Packet, state: str = "", *, answers: bool | None = None) -> tuple[Prediction, Tracker]:
        """Predict what the kernel makes of a TCP segment, and what it knows afterwards.

        :param state: the entry's, as ``conntrack -L`` names it, as far as it matters: SYN_SENT or SYN_RECV.
        :param answers: whether it goes the other way than the entry's first packet; None where the client sent that.
        """
        assert packet.tcp is not None
        from_client = packet.source == self.client
        answers = not from_client if answers is None else answers
        sender, receiver = (self.original, self.reply) if from_client else (self.reply, self.original)
        if self.original.window == self.reply.window == 0 and not packet.tcp.flags & SYN:
            sender, receiver = _picked_up(packet, sender, receiver)
        prediction, sender, receiver = _judge(packet, sender, receiver, self.behaviour, state, answers)
        if (self.liberal or sender.liberal) and prediction is not ACCEPTED:
            prediction = _LIBERALLY
        sides = (sender, receiver) if from_client else (receiver, sender)
        return prediction, replace(self, original=sides[0], reply=sides[1])

    def edges(self, packet: Packet) -> Edges | None:
        """Return what a segment is held against; None where a side of the connection was not seen yet."""
        sides = (self.original, self.reply) if packet.source == self.client else (self.reply, self.original)
        return _edges(*sides) if all(side.window for side in sides) else None

    def taken_up(self, packet: Packet, reached: int) -> Tracker:
        """Return what the kernel knows if it saw everything up to a packet, some of which is not known here.

        :param reached: the number up to which the packet says that the other side has sent.
        """
        assert packet.tcp is not None
        from_client = packet.source == self.client
        sender, receiver = (self.original, self.reply) if from_client else (self.reply, self.original)
        sender = replace(
            sender, end=_later(sender.end, packet.tcp.sequence), limit=_later(sender.limit, packet.tcp.sequence)
        )
        receiver = replace(receiver, end=_later(receiver.end, reached), limit=_later(receiver.limit, reached))
        sides = (sender, receiver) if from_client else (receiver, sender)
        return replace(self, original=sides[0], reply=sides[1]).judge(packet)[1]

    def after(self, packets: Iterable[Packet]) -> Tracker:
        """Return what the kernel knows after more packets."""
        tracker = self
        for packet in packets:
            tracker = tracker.judge(packet)[1]
        return tracker


def _before(first: int, second: int) -> bool:
    return distance(first, second) > 0


def _later(first: int, second: int) -> int:
    return second if _before(first, second) else first


def _up(number: int, by: int) -> int:
    return (number + by) % SEQUENCE_SPACE


def begins_anew(packet: Packet, sender: SideWindow, behaviour: Behaviour, state: str, *, answers: bool) -> bool:
    """Check whether a side's numbers are taken anew from a segment, as both sides have not gone on from those before.

    RFC 9293, 3.4.1: a TCP that begins anew uses numbers larger than those before. Newer kernels look at SYNs alone, of
    either side (82b72cb94666); older ones at whatever the side that is to go on sends.
    """
    assert packet.tcp is not None
    if not sender.window or not _before(sender.end, packet.end):
        return False
    if behaviour is Behaviour.STRICT:
        return state == ("SYN_RECV" if answers else "SYN_SENT")
    return state in {"SYN_SENT", "SYN_RECV"} and bool(packet.tcp.flags & SYN)


def _picked_up(packet: Packet, sender: SideWindow, receiver: SideWindow) -> tuple[SideWindow, SideWindow]:
    """Begin in the middle of a connection (tcp_new)."""
    assert packet.tcp is not None
    window = packet.tcp.window or 1
    sender = SideWindow(packet.end, _up(packet.end, window), window, selects=True, liberal=True)
    return sender, replace(receiver, selects=True, liberal=True)


def _begin(packet: Packet, sender: SideWindow, receiver: SideWindow, *, answers: bool) -> tuple[SideWindow, SideWindow]:
    """Take a side's numbers from its SYN (tcp_init_sender)."""
    tcp = packet.tcp
    assert tcp is not None
    sender = SideWindow(
        end=packet.end,
        limit=packet.end,
        window=tcp.window or 1,
        scale=min(tcp.window_scale or 0, MOST_SCALE),
        scales=tcp.window_scale is not None,
        selects=tcp.sack_permitted,
        liberal=sender.liberal,
    )
    if answers and not (sender.scales and receiver.scales):
        return replace(sender, scale=0), replace(receiver, scale=0)
    return sender, receiver


def _begin_late(
    packet: Packet, sender: SideWindow, receiver: SideWindow, selected: int
) -> tuple[SideWindow, SideWindow]:
    """Take a side's numbers from its first segment, which is no SYN (tcp_in_window)."""
    assert packet.tcp is not None
    window = packet.tcp.window << sender.scale or 1
    sender = replace(sender, end=packet.end, limit=_up(packet.end, window), window=window)
    if receiver.window == 0:
        return sender, replace(receiver, end=selected, limit=selected)
    if selected == _up(receiver.end, 1):  # as an answer to a keepalive
        return sender, replace(receiver, end=selected)
    return sender, receiver


def _begin_again(
    packet: Packet, sender: SideWindow, receiver: SideWindow, behaviour: Behaviour, *, answers: bool
) -> tuple[SideWindow, SideWindow]:
    if behaviour is Behaviour.IGNORES_LATE:
        return _begin(packet, sender, receiver, answers=answers)
    tcp = packet.tcp
    assert tcp is not None
    sender = replace(sender, end=packet.end, limit=packet.end, window=tcp.window or 1)
    has_options = tcp.timestamps or tcp.sack_blocks or tcp.sack_permitted or tcp.window_scale is not None
    if has_options or tcp.flags & SYN:
        scale = min(tcp.window_scale or 0, MOST_SCALE)
        scales = tcp.window_scale is not None
        sender = replace(sender, scale=scale, scales=scales, selects=tcp.sack_permitted)
    return sender, receiver


def _judge(
    packet: Packet, sender: SideWindow, receiver: SideWindow, behaviour: Behaviour, state: str, answers: bool
) -> tuple[Prediction, SideWindow, SideWindow]:
    tcp = packet.tcp
    assert tcp is not None
    sequence, end = tcp.sequence, packet.end
    acknowledged = tcp.acknowledgement
    selected = acknowledged
    for _left, edge in tcp.sack_blocks if receiver.selects else ():
        selected = _later(selected, edge)
    if sender.window == 0 and not tcp.flags & SYN:
        sender, receiver = _begin_late(packet, sender, receiver, selected)
    elif sender.window == 0:
        sender, receiver = _begin(packet, sender, receiver, answers=answers)
        if not tcp.flags & ACK:
            return ACCEPTED, sender, receiver
    elif begins_anew(packet, sender, behaviour, state, answers=answers):
        sender, receiver = _begin_again(packet, sender, receiver, behaviour, answers=answers)
        if answers and not tcp.flags & ACK and behaviour is Behaviour.IGNORES_LATE:
            return ACCEPTED, sender, receiver
    if not tcp.flags & ACK or (tcp.flags & RST and acknowledged == 0):
        acknowledged = selected = receiver.end
    if tcp.flags & RST and sequence == 0 and state == "SYN_SENT":
        sequence = end = sender.end  # what answers a SYN
    prediction = _held(sender, receiver, (sequence, end), selected, behaviour)
    if prediction is not ACCEPTED:
        # From 6.0 on the kernel follows the sender there, lest its acknowledgement be out of bounds for ever.
        follows = prediction.condition == "I" and prediction.judgement is Judgement.IGNORED
        return prediction, replace(sender, end=end) if follows else sender, receiver
    return ACCEPTED, *_update(packet, sender, receiver, end, acknowledged, selected)


def _held(
    sender: SideWindow, receiver: SideWindow, sent: tuple[int, int], selected: int, behaviour: Behaviour
) -> Prediction:
    """Hold a segment against the four conditions.

    :param sent: where it begins and ends.
    """
    sequence, end = sent
    bounds = _edges(sender, receiver)
    excess = {
        "I": distance(bounds.sequence[1], sequence),
        "II": distance(end, bounds.sequence[0]) if receiver.window else 0,
        "III": distance(bounds.acknowledgement[1], selected),
        "IV": distance(selected, bounds.acknowledgement[0]),
    }
    order = _ORDERS[behaviour]
    broken = next((condition for condition in order if excess[condition] > 0), "")
    if not broken:
        return ACCEPTED
    overshoot = distance(sender.limit, end) + 1
    only_first = all(excess[condition] <= 0 for condition in ("II", "III", "IV")) and receiver.window > 0
    if broken == "I" and only_first and 0 <= overshoot <= receiver.window:
        return Prediction(_mildly(behaviour), "I", excess["I"])
    judgement = Judgement.INVALID if broken in ("I", "III") else _mildly(behaviour)
    return Prediction(judgement, broken, excess[broken])


def _edges(sender: SideWindow, receiver: SideWindow) -> Edges:
    oldest = _up(receiver.end, -max(_LEAST_ACK_WINDOW, sender.window))
    return Edges((_up(sender.end, -receiver.window), sender.limit), (oldest, receiver.end))


def _mildly(behaviour: Behaviour) -> Judgement:
    return Judgement.INVALID if behaviour is Behaviour.STRICT else Judgement.IGNORED


def _update(
    packet: Packet, sender: SideWindow, receiver: SideWindow, end: int, acknowledged: int, selected: int
) -> tuple[SideWindow, SideWindow]:
    tcp = packet.tcp
    assert tcp is not None
    window = tcp.window if tcp.flags & SYN else tcp.window << sender.scale
    offered = window + distance(acknowledged, selected)
    beyond = distance(sender.limit, end)
    if receiver.window and beyond > 0:
        receiver = replace(receiver, window=receiver.window + beyond)
    granted = _up(selected, window)
    if distance(receiver.limit, granted) >= 0:
        receiver = replace(receiver, limit=_up(granted, 0 if window else 1))
    return replace(sender, end=_later(sender.end, end), window=max(sender.window, offered)), receiver
