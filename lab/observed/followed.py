# SPDX-License-Identifier: MIT
"""One connection to a VIP while somebody looks on, as far as its packets and its entry tell."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import replace
from typing import Final

from lab.capture.judging import FINE, Conntrack, Word
from lab.evidence.entry import Entry
from lab.evidence.judgement import Judgement
from lab.evidence.packet import FIN, RST, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.observed.found import Leak
from lab.vocabulary import Behaviour

#: Packets of one connection that are remembered for what may follow them.
FEW: Final = 16

#: States of an entry in which a connection is over (nf_conntrack_proto_tcp.c).
OVER: Final = frozenset({"TIME_WAIT", "CLOSE"})


class Followed:
    """A connection to a VIP, as the node's conntrack has it.

    :ivar model: None where its beginning was not seen, or not all of what followed.
    :ivar over: by its packets. Conntrack's events have no time: what they tell may be of later than a packet is.
    :ivar state: the last one told in which it was not over.
    :ivar passed: whether a packet of it was seen.
    :ivar local: its client is the node itself; None where that is not known.
    """

    def __init__(self, entry: Entry, remembered: int) -> None:
        self.entry = entry
        self.gone = self.passed = False
        self.model: Conntrack | None = None
        self.local: bool | None = None
        self.over = entry.tcp_state in OVER
        self.state = entry.tcp_state or ""
        self.asked = 0
        self.found = 0
        self.kept: deque[Sighting] = deque(maxlen=remembered)
        self.odd: deque[tuple[Packet, Word]] = deque(maxlen=FEW)
        self.leaks: OrderedDict[tuple[object, ...], tuple[Leak, set[str]]] = OrderedDict()
        self.resets: OrderedDict[int, set[str]] = OrderedDict()
        self._fins: set[bool] = set()
        self._closer: Packet | None = None

    def tell(self, entry: Entry) -> None:
        """Take what conntrack tells of the entry into account."""
        self.entry, self.gone = entry, False
        if entry.tcp_state is not None and entry.tcp_state not in OVER:
            self.state = entry.tcp_state

    @property
    def ends(self) -> tuple[SocketAddress, SocketAddress]:
        """What packets of the endpoint's have before they are translated."""
        return self.entry.reply

    @property
    def masqueraded(self) -> bool:
        """Whether the endpoint knows the client by another address."""
        return self.entry.reply[1] != self.entry.original[0]

    def begin(self, behaviour: Behaviour, *, local: bool) -> None:
        """Take it that a SYN begins the connection here, perhaps once more."""
        if self.model is None or self.over:
            self.model, self.over, self.local = Conntrack(self.entry.original[0], behaviour), False, local
            self._fins.clear()
            self.odd.clear()

    def take(self, packet: Packet, *, from_client: bool) -> None:
        """Take a packet of the connection into account, as it came to the node."""
        tcp = packet.tcp
        assert tcp is not None
        word = FINE
        if self.model is not None:
            client = self.entry.original[0]
            judged = replace(packet, source=client) if from_client and packet.source != client else packet
            word = self.model.judge(judged, from_client=from_client)
            if word is not FINE:
                self.odd.append((packet, word))
        if word.judgement is Judgement.INVALID:
            return
        if tcp.flags & FIN:
            self._fins.add(from_client)
        if not self.over and (tcp.flags & RST or len(self._fins) == 2):
            self.over, self._closer = True, packet

    def leaked(self, packet: Packet) -> None:
        """Take it that a packet of the endpoint's was not translated, and so was no word on the connection."""
        if self._closer is not None and self._closer.likeness == packet.likeness:
            self.over, self._closer = False, None

    def word(self, packet: Packet) -> Word | None:
        """Return what the model made of a packet when it came; None without a model."""
        if self.model is None:
            return None
        return next((word for odd, word in self.odd if odd.likeness == packet.likeness), FINE)

    def answered(self, number: int) -> Word | None:
        """Return what the model made of the packet that a RST of this number answers, if it was INVALID."""
        for odd, word in self.odd:
            if odd.tcp is not None and odd.tcp.acknowledgement == number and word.judgement is Judgement.INVALID:
                return word
        return None
