# SPDX-License-Identifier: MIT
"""A model of conntrack's window check, in both of its eras: what a node that saw these packets makes of the next one.

Follows ``tcp_in_window`` and ``tcp_init_sender`` of net/netfilter/nf_conntrack_proto_tcp.c: Linux 5.10 for the strict
era, 6.1 for the one that ignores late packets. The four conditions are numbered as in the comment there: I, the
segment starts at or below the highest number that the receiver ever granted; II, it ends no more than a window behind
what the sender sent; III, it acknowledges nothing that was not seen; IV, its acknowledgement is not too old.

A connection whose first packet is no SYN was picked up in its middle (``tcp_new``): the kernel marks both of its sides
liberal, so nothing of it is ever out of the window.

The model is of plain segments, with data or without: flags that are illegal and resets are judged elsewhere in the
kernel. So are segments of a handshake of which the node saw one side only: there the table of states decides, before
the window is asked (``tcp_conntracks``).
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
MOST_SCALE: Final = 14  # RFC 7323, 2.3


@dataclass(frozen=True)
class SideWindow:
    """What the kernel keeps of one side (struct ip_ct_tcp_state), numbers modulo 2^32.

    :param end: the highest end of a segment that this side sent (td_end).
    :param limit: the highest number that the other side granted it (td_maxend).
    :param window: the largest window that it offered, in bytes; 0 before its first segment (td_maxwin).
    """

    end: int = 0
    limit: int = 0
    window: int = 0
    scale: int = 0
    scales: bool = False
    selects: bool = False


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
    """

    judgement: Judgement
    condition: str = ""
    excess: int = 0
    state: str = ""

    def __str__(self) -> str:
        if self.state:
            return f"expected {self.judgement} by the table of states: the entry is in {self.state}"
        if not self.condition:
            return f"expected {self.judgement}"
        plural = "byte" if self.excess == 1 else "bytes"
        return f"expected {self.judgement} by condition {self.condition}: {self.excess:,} {plural} out of it"


ACCEPTED: Final = Prediction(Judgement.ACCEPTED)


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
    :param liberal: ``nf_conntrack_tcp_be_liberal`` is set, or the connection was picked up in its middle.
    """

    client: SocketAddress
    behaviour: Behaviour
    liberal: bool = False
    original: SideWindow = SideWindow()
    reply: SideWindow = SideWindow()

    def judge(self, packet: Packet) -> tuple[Prediction, Tracker]:
        """Predict what the kernel makes of a TCP segment, and what it knows afterwards."""
        assert packet.tcp is not None
        from_client = packet.source == self.client
        sender, receiver = (self.original, self.reply) if from_client else (self.reply, self.original)
        prediction, sender, receiver = _judge(packet, sender, receiver, self.behaviour, from_client)
        is_picked_up = self.original.window == self.reply.window == 0 and not packet.tcp.flags & SYN
        liberal = self.liberal or is_picked_up
        if liberal and prediction is not ACCEPTED:
            prediction = ACCEPTED
        sides = (sender, receiver) if from_client else (receiver, sender)
        return prediction, replace(self, liberal=liberal, original=sides[0], reply=sides[1])

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


def _begin(packet: Packet, sender: SideWindow, receiver: SideWindow, *, answers: bool) -> tuple[SideWindow, SideWindow]:
    """Take a side's numbers from its first segment (tcp_init_sender): its SYN, or where it is picked up, any."""
    tcp = packet.tcp
    assert tcp is not None
    sender = SideWindow(
        end=packet.end,
        limit=packet.end,
        window=tcp.window or 1,
        scale=min(tcp.window_scale or 0, MOST_SCALE),
        scales=tcp.window_scale is not None,
        selects=tcp.sack_permitted,
    )
    if answers and not (sender.scales and receiver.scales):
        return replace(sender, scale=0), replace(receiver, scale=0)
    return sender, receiver


def _judge(
    packet: Packet, sender: SideWindow, receiver: SideWindow, behaviour: Behaviour, from_client: bool
) -> tuple[Prediction, SideWindow, SideWindow]:
    tcp = packet.tcp
    assert tcp is not None
    sequence, end = tcp.sequence, packet.end
    acknowledged = tcp.acknowledgement
    edges = [right for _left, right in tcp.sack_blocks] if receiver.selects else []
    selected = acknowledged
    for edge in edges:
        if _before(selected, edge):
            selected = edge
    if sender.window == 0:
        sender, receiver = _begin(packet, sender, receiver, answers=not from_client)
        if not tcp.flags & ACK:
            return ACCEPTED, sender, receiver
    if not tcp.flags & ACK or (tcp.flags & RST and acknowledged == 0):
        acknowledged = selected = receiver.end
    bounds = _edges(sender, receiver)
    excess = {
        "I": distance(bounds.sequence[1], sequence),
        "III": distance(bounds.acknowledgement[1], selected),
        "II": distance(end, bounds.sequence[0]) if receiver.window else 0,
        "IV": distance(selected, bounds.acknowledgement[0]),
    }
    broken = next((condition for condition, by in excess.items() if by > 0), "")
    if broken:
        overshoot = distance(sender.limit, end) + 1
        only_first = all(excess[condition] <= 0 for condition in ("II", "III", "IV")) and receiver.window > 0
        if broken == "I" and only_first and 0 <= overshoot <= receiver.window:
            # From 6.0 on the kernel follows the sender there, lest its acknowledgement be out of bounds for ever.
            followed = replace(sender, end=end) if behaviour is Behaviour.IGNORES_LATE else sender
            return Prediction(_mildly(behaviour), "I", excess["I"]), followed, receiver
        judgement = Judgement.INVALID if broken in ("I", "III") else _mildly(behaviour)
        return Prediction(judgement, broken, excess[broken]), sender, receiver
    return ACCEPTED, *_update(packet, sender, receiver, acknowledged, selected)


def _edges(sender: SideWindow, receiver: SideWindow) -> Edges:
    oldest = _up(receiver.end, -max(_LEAST_ACK_WINDOW, sender.window))
    return Edges((_up(sender.end, -receiver.window), sender.limit), (oldest, receiver.end))


def _mildly(behaviour: Behaviour) -> Judgement:
    return Judgement.INVALID if behaviour is Behaviour.STRICT else Judgement.IGNORED


def _update(
    packet: Packet, sender: SideWindow, receiver: SideWindow, acknowledged: int, selected: int
) -> tuple[SideWindow, SideWindow]:
    tcp = packet.tcp
    assert tcp is not None
    window = tcp.window if tcp.flags & SYN else tcp.window << sender.scale
    offered = window + distance(acknowledged, selected)
    end = packet.end if _before(sender.end, packet.end) else sender.end
    beyond = distance(sender.limit, packet.end)
    if receiver.window and beyond > 0:
        receiver = replace(receiver, window=receiver.window + beyond)
    granted = _up(selected, window)
    if distance(receiver.limit, granted) >= 0:
        receiver = replace(receiver, limit=_up(granted, 0 if window else 1))
    return replace(sender, end=end, window=max(sender.window, offered)), receiver
