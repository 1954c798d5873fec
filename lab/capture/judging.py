# SPDX-License-Identifier: MIT
"""What conntrack makes of a connection's packets, as far as these tell: flags, resets, the state, the window.

Follows nf_conntrack_proto_tcp.c: ``tcp_error`` for flags, the table ``tcp_conntracks`` for a SYN or SYN,ACK on a
connection that is established, ``nf_conntrack_tcp_packet`` for resets. The window is the model's of
:mod:`lab.evidence.window`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.capture.quick import QuickWindow
from lab.evidence.flags import is_taken
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, FIN, RST, SYN, Packet, SocketAddress
from lab.evidence.window import MOST_SCALE, Prediction, Tracker
from lab.vocabulary import Behaviour

_PUSH: Final = 0x08
_PLAIN: Final = ACK | _PUSH


@dataclass(frozen=True, slots=True)
class Word:
    """What conntrack is expected to say of a packet.

    :param by: what it looks at: ``window``, ``flags``, ``reset``, ``state``; empty where it accepts.
    :param at_least: the excess may be more.
    """

    judgement: Judgement
    by: str = ""
    condition: str = ""
    excess: int = 0
    at_least: bool = False


FINE: Final = Word(Judgement.ACCEPTED)
_FLAGS: Final = Word(Judgement.INVALID, "flags")
_MIDDLE: Final = Word(Judgement.INVALID, "state")
_STATE_IGNORED: Final = Word(Judgement.IGNORED, "state")


class Conntrack:
    """The entry of one connection, as its packets make it.

    :ivar closed: it is over: a reset, or a FIN of each side.
    :ivar unscaled: how windows are scaled is not known, as a SYN's options were cut: by as much as can be, then.
    """

    def __init__(self, client: SocketAddress, behaviour: Behaviour) -> None:
        self._tracker = Tracker(client, behaviour)
        self._quick: QuickWindow | None = None
        self.begun = False
        self.answered = False
        self.established = False
        self.closed = False
        self.unscaled = False
        self._fins: set[bool] = set()
        self._acknowledged: dict[bool, int] = {}
        self._in_doubt = behaviour is Behaviour.IGNORES_LATE  # told by 5.10: the change is of 5.14 (c4edc3ccbc63)
        self._ignored_syn: int | None = None  # the number behind the client's, where it was the last packet of all

    def sent(self, *, by_client: bool) -> int | None:
        """Return the number behind the last byte that a side sent; None where it sent nothing."""
        if self._quick is not None:
            return (self._quick.client if by_client else self._quick.server).end
        side = self._tracker.original if by_client else self._tracker.reply
        return side.end if side.window else None

    @property
    def tracker(self) -> Tracker:
        """The window as the entry has it by now."""
        if self._quick is not None:
            self._tracker, self._quick = self._quick.tracker, None
        return self._tracker

    @property
    def windows(self) -> QuickWindow | None:
        """The window of an established connection, to be gone on with from outside; None of others."""
        if self._quick is None and self.established and self._tracker.original.window and self._tracker.reply.window:
            self._quick = QuickWindow(self._tracker)
        return self._quick

    def awaited(self, *, from_client: bool) -> int | None:
        """Return the number that the other side has acknowledged to a side; None where it has told nothing."""
        return self._acknowledged.get(not from_client)

    @property
    def state(self) -> str:
        """The state of an entry whose handshake is done and which is not over, as conntrack names it; else empty."""
        if not self.established or self.closed:
            return ""
        if not self._fins:
            return "ESTABLISHED"
        return "FIN_WAIT" if any(self._lacks(side) for side in self._fins) else "CLOSE_WAIT"

    @property
    def is_unacknowledged(self) -> bool:
        """Whether a side has sent what the other has not acknowledged."""
        return self._lacks(by_client=True) or self._lacks(by_client=False)

    def _lacks(self, by_client: bool) -> bool:
        sent, acknowledged = self.sent(by_client=by_client), self.awaited(from_client=by_client)
        return sent is not None and acknowledged is not None and distance(acknowledged, sent) > 0

    def judge(self, packet: Packet, *, from_client: bool) -> Word:
        """Say what is expected of a packet, and take it into account.

        :param packet: its source is the client that the entry knows, where it is from it.
        """
        tcp = packet.tcp
        assert tcp is not None
        flags = tcp.flags
        ignored_syn, self._ignored_syn = self._ignored_syn, None
        if flags | _PUSH == _PLAIN and self.established and not tcp.sack_blocks and self._is_fine(packet, from_client):
            return FINE
        if not is_taken(flags):
            return _FLAGS
        if flags & RST:
            return self._reset(packet, from_client, ignored_syn)
        if flags & SYN and self.established:
            mild = bool(flags & ACK) != from_client  # a SYN of the client's, or a SYN,ACK of the server's
            if mild and from_client and self._in_doubt:
                self._ignored_syn = packet.end
            return _STATE_IGNORED if mild else _MIDDLE
        if not self.begun and (flags & (SYN | ACK)) == SYN | ACK:
            return _MIDDLE
        if flags & ACK and not flags & SYN and self.begun and not self.answered:
            return _MIDDLE if from_client else _STATE_IGNORED
        if flags & SYN and tcp.is_cut and tcp.window_scale is None:
            self.unscaled = True
            packet = replace(packet, tcp=replace(tcp, window_scale=MOST_SCALE, sack_permitted=True))
        prediction, self._tracker = self.tracker.judge(packet)
        if prediction.judgement is not Judgement.ACCEPTED:
            return self._window(prediction)
        self._take(packet, from_client)
        return FINE

    def take_up(self, packet: Packet, reached: int, *, from_client: bool) -> None:
        """Go on from a packet that both sides went on from, though not all that is before it was seen.

        :param reached: the number up to which the packet says that the other side has sent.
        """
        known = replace(packet, source=self._tracker.client) if from_client else packet
        self._tracker = self.tracker.taken_up(known, reached)
        self._take(packet, from_client)

    def _is_fine(self, packet: Packet, from_client: bool) -> bool:
        """Check whether a plain segment is in the window, and take it into account if it is."""
        tcp = packet.tcp
        assert tcp is not None
        windows, numbers = self.windows, (tcp.sequence, packet.payload_length, tcp.acknowledgement, tcp.window)
        if windows is None or not windows.accepts(*numbers, from_client=from_client):
            return False
        self.acknowledge(tcp.acknowledgement, from_client=from_client)
        return True

    def acknowledge(self, number: int, *, from_client: bool) -> None:
        """Take it that a side has acknowledged up to a number."""
        before = self._acknowledged.get(from_client)
        if before is None or distance(before, number) > 0:
            self._acknowledged[from_client] = number

    def _take(self, packet: Packet, from_client: bool) -> None:
        tcp = packet.tcp
        assert tcp is not None
        flags = tcp.flags
        if not self.begun:
            self.begun = True
            self.established = self.answered = not flags & SYN  # else picked up in its middle
        elif flags & SYN:
            self.answered = self.answered or not from_client
        elif from_client and self.answered:
            self.established = True
        if flags & ACK:
            self.acknowledge(tcp.acknowledgement, from_client=from_client)
        if flags & FIN:
            self._fins.add(from_client)
            self.closed = len(self._fins) == 2

    def _reset(self, packet: Packet, from_client: bool, ignored_syn: int | None) -> Word:
        """Say what is expected of a RST.

        :param ignored_syn: the number behind the SYN that was ignored right before it: then none of those before
            counts, and the server's word for that SYN closes the entry.
        """
        tcp = packet.tcp
        assert tcp is not None
        if not self.begun:
            return _MIDDLE
        if ignored_syn is not None and not from_client and tcp.acknowledgement == ignored_syn:
            self.closed = True
            return FINE
        awaited = self.awaited(from_client=from_client)
        if (
            ignored_syn is None
            and awaited is not None
            and distance(tcp.sequence, awaited) > 0
            and (tcp.sequence or self.established)
        ):
            return Word(Judgement.INVALID, "reset", excess=distance(tcp.sequence, awaited))
        if self.established and tcp.sequence != awaited:
            prediction, _unchanged = self.tracker.judge(packet)
            if prediction.judgement is not Judgement.ACCEPTED:
                return self._window(prediction)
        self.closed = True
        return FINE

    def _window(self, prediction: Prediction) -> Word:
        rests_on_scale = self.unscaled and prediction.condition != "III"
        return Word(prediction.judgement, "window", prediction.condition, prediction.excess, rests_on_scale)
