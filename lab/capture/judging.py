# SPDX-License-Identifier: MIT
"""What conntrack makes of a connection's packets, as far as these tell: flags, resets, the state, the window.

Flags are looked at first (``tcp_error`` of net/netfilter/nf_conntrack_proto_tcp.c); all else is an entry's.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Final

from lab.capture.entry import FINE, Entry, Word
from lab.capture.quick import QuickWindow
from lab.capture.states import OVER, Kind, State, kind_of, next_state
from lab.evidence.flags import is_taken
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, SYN, Packet, SocketAddress
from lab.evidence.window import MOST_SCALE

__all__ = ["FINE", "Conntrack", "Word"]

_PUSH: Final = 0x08
_PLAIN: Final = ACK | _PUSH
_FLAGS: Final = Word(Judgement.INVALID, "flags")
#: States that plain segments of either side leave as they are.
_STEADY: Final = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
#: States of which the time without a packet is of interest.
_IDLE: Final = frozenset({State.ESTABLISHED, State.FIN_WAIT, State.CLOSE_WAIT})


class Conntrack(Entry):
    """An entry, and what whoever follows its connection's packets asks of it."""

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

    def passed_on(self, client: SocketAddress) -> Conntrack:
        """Return the entry for another connection of the same addresses.

        :param client: who begins it, which may be the other side.
        """
        other = copy.copy(self)
        other._client, tracker = client, self.tracker
        other._last = copy.copy(self._last)
        other._acknowledged, other._told = dict(self._acknowledged), {}
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

    @property
    def windows(self) -> QuickWindow | None:
        """The window of a connection that plain segments leave in its state, to be gone on with; None of others."""
        if not self._assured or self._state not in _STEADY:
            return None
        if self._quick is None and self._tracker.original.window and self._tracker.reply.window:
            self._quick = QuickWindow(self._tracker)
        return self._quick

    @property
    def closed(self) -> bool:
        """Whether it is over: a reset, or a FIN of each side."""
        return self._was_closed or self._state in OVER

    @property
    def state(self) -> str:
        """The state of an entry whose handshake is done and which is not over, as conntrack names it; else empty."""
        return self._state if self._state in _IDLE else ""

    @property
    def is_unacknowledged(self) -> bool:
        """Whether a side has sent what the other has not acknowledged."""
        return self._lacks(by_client=True) or self._lacks(by_client=False)

    def _lacks(self, by_client: bool) -> bool:
        sent, acknowledged = self.sent(by_client=by_client), self.awaited(from_client=by_client)
        return sent is not None and acknowledged is not None and distance(acknowledged, sent) > 0
