# SPDX-License-Identifier: MIT
"""One entry of conntrack's for TCP, as the kernel has it: what begins it, its states, its window, what ends it.

Follows net/netfilter/nf_conntrack_proto_tcp.c (Linux 5.10 and 6.12): ``tcp_new`` for what begins an entry,
``nf_conntrack_tcp_packet`` for the states and for resets. The window is the model's of :mod:`lab.evidence.window`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from lab.capture.quick import QuickWindow
from lab.capture.states import CLOSING, OPENING, Kind, State, next_state
from lab.capture.sysctls import DEFAULTS, Sysctls
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, Packet, SocketAddress
from lab.evidence.window import MOST_SCALE, Prediction, SideWindow, Tracker, begins_anew
from lab.vocabulary import Behaviour


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


class Entry:
    """The entry of one connection. Sides are the client and the server, whoever of them sent its first packet.

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
        self._told: dict[bool, int] = {}  # what conntrack let through and did not remember
        self._last = _Last()

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

    def awaited(self, *, from_client: bool) -> int | None:
        """Return the number that the other side has acknowledged to a side; None where it has told nothing."""
        return self._acknowledged.get(not from_client, self._told.get(not from_client))

    @property
    def entry(self) -> State:
        """The state of the entry, whatever it is."""
        return self._state

    def acknowledge(self, number: int, *, from_client: bool) -> None:
        """Take it that a side has acknowledged up to a number."""
        before = self._acknowledged.get(from_client)
        if before is None or distance(before, number) > 0:
            self._acknowledged[from_client] = number

    # --- packets ---------------------------------------------------------------------------------------

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
        if tcp.flags & ACK and prediction.by_mercy:
            self._told.setdefault(from_client, tcp.acknowledgement)
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
        self.established = self.established or (
            state not in (State.SYN_SENT, State.SYN_SENT2, State.SYN_RECV, State.CLOSE)
        )
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
        answering = SideWindow(liberal=answering.liberal)
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
        awaited, state = self._acknowledged.get(not from_client), State.CLOSE
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
        of_syn = self._replied and last.kind is Kind.SYN and last.by_client is not from_client
        of_ack = not self._assured and last.kind is Kind.ACK
        if (of_syn or of_ack) and tcp.acknowledgement == last.end:
            return True
        from_server = last.by_client is not self._by_client
        challenged = self._newer and self._state is State.SYN_SENT and last.kind is Kind.ACK and from_server
        return challenged and tcp.sequence == last.acknowledged

    def _out_of_window(self, prediction: Prediction) -> Word:
        rests_on_scale = self.unscaled and prediction.condition != "III"
        return Word(prediction.judgement, "window", prediction.condition, prediction.excess, rests_on_scale)
