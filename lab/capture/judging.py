# SPDX-License-Identifier: MIT
"""What conntrack makes of a connection's packets, as far as these tell: flags, resets, the state, the window.

Follows net/netfilter/nf_conntrack_proto_tcp.c (Linux 5.10 and 6.12): ``tcp_error`` for flags, ``tcp_new`` for what
begins an entry, ``nf_conntrack_tcp_packet`` for the states and for resets. The window is the model's of
:mod:`lab.evidence.window`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Final

from lab.capture.quick import QuickWindow
from lab.capture.states import CLOSING, OPENING, OVER, Kind, State, kind_of, next_state
from lab.capture.sysctls import DEFAULTS, Sysctls
from lab.evidence.flags import is_taken
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, SYN, Packet, SocketAddress
from lab.evidence.window import MOST_SCALE, Prediction, SideWindow, Tracker, begins_anew
from lab.vocabulary import Behaviour

_PUSH: Final = 0x08
_PLAIN: Final = ACK | _PUSH
#: States that plain segments of either side leave as they are.
_STEADY: Final = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
#: States of which the time without a packet is of interest.
_IDLE: Final = frozenset({State.ESTABLISHED, State.FIN_WAIT, State.CLOSE_WAIT})


@dataclass(frozen=True, slots=True)
class Word:
    """What conntrack is expected to say of a packet.

    :param by: what it looks at: ``window``, ``flags``, ``reset``, ``state``, ``new``, ``challenge``; empty where it
        accepts.
    :param at_least: the excess may be more.
    :param state: the entry's, where the table of states decides.
    """

    judgement: Judgement
    by: str = ""
    condition: str = ""
    excess: int = 0
    at_least: bool = False
    state: str = ""


FINE: Final = Word(Judgement.ACCEPTED)
_FLAGS: Final = Word(Judgement.INVALID, "flags")
_NOT_NEW: Final = Word(Judgement.INVALID, "new")
_CHALLENGE: Final = Word(Judgement.IGNORED, "challenge", state=State.LAST_ACK)


@dataclass(slots=True)
class _Last:
    """What an entry remembers of the last packet that counted (``last_*`` of struct ip_ct_tcp).

    :ivar end: the number behind the last one that was ignored or that acknowledged, which may be an earlier one.
    :ivar acknowledged: by the last ACK that was ignored.
    :ivar window: and what follows: of an ignored SYN of the original side.
    :ivar challenged: that SYN came in LAST_ACK, and may be answered by a challenge (RFC 5961).
    """

    kind: Kind = Kind.NONE
    by_client: bool = True
    end: int = 0
    acknowledged: int = 0
    window: int = 0
    scale: int = 0
    scales: bool = False
    selects: bool = False
    challenged: bool = False
    simultaneous: bool = False


class Conntrack:
    """The entry of one connection, as its packets make it.

    :ivar begun: there is an entry, or was one. ``answered``: the other side has granted the connection.
    :ivar established: the side that asked has gone on from that.
    :ivar unscaled: how windows are scaled is not known, as a SYN's options were cut: by as much as can be, then.
    """

    def __init__(self, client: SocketAddress, behaviour: Behaviour, sysctls: Sysctls = DEFAULTS) -> None:
        self._client = client
        self._behaviour = behaviour
        self._sysctls = sysctls
        self._newer = behaviour is Behaviour.IGNORES_LATE
        self.begun = self.answered = self.established = self.unscaled = False
        self._was_closed = False
        self._forget()

    def _forget(self) -> None:
        """Have no entry."""
        self._tracker = Tracker(self._client, self._behaviour, self._sysctls.be_liberal)
        self._quick: QuickWindow | None = None
        self._state = State.NONE
        self._by_client = True  # who sent the first packet
        self._assured = self._replied = self._closes_itself = False
        self._acknowledged: dict[bool, int] = {}
        self._last = _Last()

    def passed_on(self, client: SocketAddress) -> Conntrack:
        """Return the entry for another connection of the same addresses.

        :param client: who begins it, which may be the other side.
        """
        other = copy.copy(self)
        other._client, tracker = client, self.tracker
        other._last = copy.copy(self._last)
        other._acknowledged = dict(self._acknowledged)
        other.begun = other.answered = other.established = other.unscaled = other._was_closed = False
        other._quick = None
        if client == tracker.client:
            other._tracker = tracker
            return other
        other._tracker = replace(tracker, client=client, original=tracker.reply, reply=tracker.original)
        other._by_client = not self._by_client
        other._last.by_client = not self._last.by_client
        other._acknowledged = {not side: number for side, number in self._acknowledged.items()}
        return other

    # --- what it is like -------------------------------------------------------------------------------

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
        """The window of a connection that plain segments leave in its state, to be gone on with; None of others."""
        if not self._assured or self._state not in _STEADY:
            return None
        if self._quick is None and self._tracker.original.window and self._tracker.reply.window:
            self._quick = QuickWindow(self._tracker)
        return self._quick

    def awaited(self, *, from_client: bool) -> int | None:
        """Return the number that the other side has acknowledged to a side; None where it has told nothing."""
        return self._acknowledged.get(not from_client)

    @property
    def closed(self) -> bool:
        """Whether it is over: a reset, or a FIN of each side."""
        return self._was_closed or self._state in OVER

    @property
    def state(self) -> str:
        """The state of an entry whose handshake is done and which is not over, as conntrack names it; else empty."""
        return self._state if self._state in _IDLE else ""

    @property
    def entry(self) -> State:
        """The state of the entry, whatever it is."""
        return self._state

    @property
    def is_unacknowledged(self) -> bool:
        """Whether a side has sent what the other has not acknowledged."""
        return self._lacks(by_client=True) or self._lacks(by_client=False)

    def _lacks(self, by_client: bool) -> bool:
        sent, acknowledged = self.sent(by_client=by_client), self.awaited(from_client=by_client)
        return sent is not None and acknowledged is not None and distance(acknowledged, sent) > 0

    # --- packets ---------------------------------------------------------------------------------------

    def judge(self, packet: Packet, *, from_client: bool) -> Word:
        """Say what is expected of a packet, and take it into account.

        :param packet: its source is the client that the entry knows, where it is from it.
        """
        tcp = packet.tcp
        assert tcp is not None
        flags = tcp.flags
        if flags | _PUSH == _PLAIN and not tcp.sack_blocks and self._is_fine(packet, from_client):
            return FINE
        if not is_taken(flags):
            return _FLAGS
        if flags & SYN and tcp.is_cut and tcp.window_scale is None:
            self.unscaled = True
            packet = replace(packet, tcp=replace(tcp, window_scale=MOST_SCALE, sack_permitted=True))
        word = self._by_state(packet, kind_of(flags), from_client)
        if word.judgement is not Judgement.INVALID and from_client is not self._by_client:
            self._replied = self._state is not State.NONE
        return word

    def went_on(self, packet: Packet, *, from_client: bool) -> None:
        """Take it that plain segments were taken into account outside, and this one last."""
        self._last.kind, self._last.by_client, self._last.end = Kind.ACK, from_client, packet.end

    def take_up(self, packet: Packet, reached: int, *, from_client: bool) -> None:
        """Go on from a packet that both sides went on from, though not all that is before it was seen.

        :param reached: the number up to which the packet says that the other side has sent.
        """
        assert packet.tcp is not None
        known = replace(packet, source=self._tracker.client) if from_client else packet
        self._tracker = self.tracker.taken_up(known, reached)
        kind = kind_of(packet.tcp.flags)
        state = next_state(self._state, kind, original=from_client is self._by_client)
        if state not in (State.INVALID, State.IGNORED):
            self._enter(kind, state, from_client)
        if packet.tcp.flags & ACK:
            self.acknowledge(packet.tcp.acknowledgement, from_client=from_client)

    def acknowledge(self, number: int, *, from_client: bool) -> None:
        """Take it that a side has acknowledged up to a number."""
        before = self._acknowledged.get(from_client)
        if before is None or distance(before, number) > 0:
            self._acknowledged[from_client] = number

    def _is_fine(self, packet: Packet, from_client: bool) -> bool:
        """Check whether a plain segment is in the window, and take it into account if it is."""
        tcp = packet.tcp
        assert tcp is not None
        windows, numbers = self.windows, (tcp.sequence, packet.payload_length, tcp.acknowledgement, tcp.window)
        if windows is None or not windows.accepts(*numbers, from_client=from_client):
            return False
        self.acknowledge(tcp.acknowledgement, from_client=from_client)
        self.went_on(packet, from_client=from_client)
        return True

    def _by_state(self, packet: Packet, kind: Kind, from_client: bool) -> Word:
        """Ask the table of states, and then the window (nf_conntrack_tcp_packet)."""
        if self._state is State.NONE:
            return self._new(packet, kind, from_client)
        original = from_client is self._by_client
        state = next_state(self._state, kind, original=original)
        last = self._last
        if state is State.SYN_SENT and self._state in (State.TIME_WAIT, State.CLOSE):
            if self._closes_itself or (last.by_client is from_client and last.kind is Kind.RST):
                self._forget()
                return self._new(packet, kind, from_client)
            state = State.IGNORED
        if state is State.IGNORED:
            if not self._answers_ignored(packet, kind, from_client):
                return self._ignore(packet, kind, from_client)
            self._go_with(from_client)
            state = State.SYN_RECV
        if state is State.INVALID:
            return Word(Judgement.INVALID, "state", state=self._state)
        if state is State.TIME_WAIT and self._is_challenge(kind, from_client):
            last.challenged = False
            return _CHALLENGE
        if state is State.SYN_SENT2:
            last.simultaneous = True
        elif state is State.SYN_RECV and not original and kind is Kind.ACK and last.simultaneous:
            state = State.ESTABLISHED
        elif kind is Kind.RST:
            wrong, state, is_asked = self._reset(packet, from_client)
            if wrong is not None:
                return wrong
            if not is_asked:
                self._enter(kind, state, from_client)
                return FINE
        return self._by_window(packet, kind, state, from_client)

    def _new(self, packet: Packet, kind: Kind, from_client: bool) -> Word:
        """Make an entry of a packet, if it may make one (tcp_new)."""
        state = next_state(State.NONE, kind, original=True)
        if state is State.INVALID or (kind is Kind.ACK and not self._sysctls.loose):
            return _NOT_NEW
        self._by_client = from_client
        return self._by_window(packet, kind, state, from_client)

    def _by_window(self, packet: Packet, kind: Kind, state: State, from_client: bool) -> Word:
        tcp = packet.tcp
        assert tcp is not None
        answers, tracker = from_client is not self._by_client, self.tracker
        if self._state in OPENING:
            side = tracker.original if from_client else tracker.reply
            if begins_anew(packet, side, self._behaviour, self._state, answers=answers):
                self._acknowledged.pop(from_client, None)
        prediction, self._tracker = tracker.judge(packet, self._state, answers=answers)
        if prediction.judgement is Judgement.INVALID and self._newer:
            self._blame(kind, from_client)
        if prediction.judgement is not Judgement.ACCEPTED:
            return self._out_of_window(prediction)
        if tcp.flags & ACK and not prediction.by_mercy:
            number = tcp.acknowledgement
            if kind is Kind.RST and number == 0:
                number = self.sent(by_client=not from_client) or 0
            self.acknowledge(number, from_client=from_client)
        if kind is Kind.ACK and not prediction.by_mercy:
            self._last.end = packet.end
        self._enter(kind, state, from_client)
        return FINE

    def _blame(self, kind: Kind, from_client: bool) -> None:
        """Remember a FIN or RST out of the window, whose answer lowers the timeout (nf_tcp_handle_invalid)."""
        last = self._last
        ends = (Kind.FIN, Kind.RST)
        if self._assured and kind in ends and not (last.by_client is not from_client and last.kind in ends):
            last.kind, last.by_client = kind, from_client

    def _enter(self, kind: Kind, state: State, from_client: bool) -> None:
        """Take the next state."""
        last, before = self._last, self._state
        last.kind, last.by_client = kind, from_client
        self._closes_itself = self._closes_itself or (state is State.FIN_WAIT is not before)
        self._state = state
        self.begun = True
        self.answered = self.answered or state not in (State.SYN_SENT, State.CLOSE)
        self.established = self.established or (state not in (State.SYN_SENT, State.SYN_SENT2, State.SYN_RECV, State.CLOSE))
        if not self._replied and kind is Kind.RST:
            self._was_closed = True
            self._forget()
        elif self._replied and state is State.ESTABLISHED and before in (State.SYN_RECV, State.ESTABLISHED):
            self._assured = True

    # --- what is ignored -------------------------------------------------------------------------------

    def _ignore(self, packet: Packet, kind: Kind, from_client: bool) -> Word:
        """Let a packet through and remember it: its receiver is to say what it is."""
        tcp, last = packet.tcp, self._last
        assert tcp is not None
        last.kind, last.by_client, last.end, last.window = kind, from_client, packet.end, tcp.window
        if kind is Kind.SYN and from_client is self._by_client:
            last.scale, last.scales = min(tcp.window_scale or 0, MOST_SCALE), tcp.window_scale is not None
            last.selects = tcp.sack_permitted
            last.challenged = self._state is State.LAST_ACK
            last.simultaneous = False
        if self._newer and self._state is State.SYN_SENT and kind is Kind.ACK:
            last.acknowledged = tcp.acknowledgement
        return Word(Judgement.IGNORED, "state", state=self._state)

    def _answers_ignored(self, packet: Packet, kind: Kind, from_client: bool) -> bool:
        """Check whether this is the SYN,ACK to the SYN that was ignored right before: both sides are in sync."""
        assert packet.tcp is not None
        last = self._last
        is_answer = kind is Kind.SYN_ACK and last.kind is Kind.SYN and last.by_client is not from_client
        return is_answer and packet.tcp.acknowledgement == last.end

    def _go_with(self, from_client: bool) -> None:
        """Begin anew by what is remembered of the ignored SYN, and by the answer that comes from a side."""
        last, tracker = self._last, self.tracker
        last.challenged = False
        asking = SideWindow(last.end, last.end, last.window or 1, last.scale, last.scales, last.selects)
        answering = tracker.original if from_client else tracker.reply
        answering = SideWindow(liberal=answering.liberal and self._newer)
        sides = (answering, asking) if from_client else (asking, answering)
        self._tracker = replace(tracker, original=sides[0], reply=sides[1])
        self._acknowledged.clear()
        self._closes_itself = False

    def _is_challenge(self, kind: Kind, from_client: bool) -> bool:
        """Check whether an ACK answers a SYN that was ignored in LAST_ACK, and not the last FIN."""
        last = self._last
        is_answer = kind is Kind.ACK and last.kind is Kind.SYN and last.by_client is not from_client
        return is_answer and self._state is State.LAST_ACK and last.challenged

    # --- resets ----------------------------------------------------------------------------------------

    def _reset(self, packet: Packet, from_client: bool) -> tuple[Word | None, State, bool]:
        """Return what is wrong with a RST, the state behind it, and whether the window is still to be asked."""
        tcp, last = packet.tcp, self._last
        assert tcp is not None
        if self._newer and self._state in CLOSING:
            return None, State.CLOSE, False
        awaited, state = self.awaited(from_client=from_client), State.CLOSE
        is_established = self._state is State.ESTABLISHED and self._assured
        if awaited is not None and not (self._newer and last.kind is Kind.SYN):
            if self._newer and tcp.sequence == 0 and not is_established:
                return None, state, True
            behind = distance(tcp.sequence, awaited)
            if behind > 0 and not self._sysctls.ignores_wrong_resets:
                return Word(Judgement.INVALID, "reset", excess=behind), state, False
            is_of_train = last.kind is Kind.ACK and last.by_client is from_client and tcp.sequence == last.end
            if not is_established or behind == 0 or is_of_train:
                return None, state, True
            state = self._state
        return None, state, not self._answers_what_was_let_through(packet, from_client)

    def _answers_what_was_let_through(self, packet: Packet, from_client: bool) -> bool:
        """Check whether a RST is the word on a SYN or an ACK that was ignored: then no window is asked."""
        tcp, last = packet.tcp, self._last
        assert tcp is not None
        of_syn = self._replied and last.kind is Kind.SYN and (not self._newer or last.by_client is not from_client)
        of_ack = not self._assured and last.kind is Kind.ACK
        if (of_syn or of_ack) and tcp.acknowledgement == last.end:
            return True
        from_server = last.by_client is not self._by_client
        challenged = self._newer and self._state is State.SYN_SENT and last.kind is Kind.ACK and from_server
        return challenged and tcp.sequence == last.acknowledged

    def _out_of_window(self, prediction: Prediction) -> Word:
        rests_on_scale = self.unscaled and prediction.condition != "III"
        return Word(prediction.judgement, "window", prediction.condition, prediction.excess, rests_on_scale)
