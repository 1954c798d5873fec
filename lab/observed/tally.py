# SPDX-License-Identifier: MIT
"""How many leaks and resets there were, towards whom; and whether a node suffers from the bug, as far as was seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from lab.evidence.packet import SocketAddress
from lab.observed.found import GONE, Finding, Leak

#: Services with their endpoints, and clients of each, that are told apart; the others are counted together.
_MOST: Final = 200
_CLIENTS: Final = 50
OTHERS: Final = "others"


class Answer(Enum):
    """Whether a node suffers from the bug; its value is the exit code."""

    NO = 0
    SUFFERS = 1
    UNKNOWN = 2


@dataclass
class Pair:
    """What was seen of one VIP's connections to one endpoint.

    :ivar leaks: packets that left untranslated, of connections that lived; ``gone``: of them, those without an entry.
    :ivar resets: RSTs to the endpoint that answered such packets; ``by_node``: of them, those of the node itself.
    :ivar late: leaks and resets of connections that were over already.
    :ivar connections: that leaked or were reset while they lived.
    :ivar clients: how many leaks and resets each had.
    """

    leaks: int = 0
    gone: int = 0
    resets: int = 0
    by_node: int = 0
    late: int = 0
    connections: int = 0
    clients: Counter[str] = field(default_factory=Counter)


@dataclass
class Missed:
    """What nobody can tell of.

    :ivar packets: that the kernel could not hand over; ``events``: how often it threw away what conntrack told.
    :ivar connections: that were given up for memory.
    :ivar data: packets of data likewise. Leaks are looked for apart from them, so that makes no answer doubtful.
    """

    packets: int = 0
    data: int = 0
    events: int = 0
    connections: int = 0

    def __bool__(self) -> bool:
        return bool(self.packets or self.events or self.connections)


class Tally:
    """Counts findings.

    :ivar connections: to VIPs of which packets were seen.
    :ivar pairs: by VIP and endpoint.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.missed = Missed()
        self.pairs: dict[tuple[str, str], Pair] = {}

    def count(self, found: Finding) -> None:
        """Count a finding."""
        pair = self._pair(found.target, found.endpoint)
        if found.over:
            pair.late += 1
            return
        if isinstance(found, Leak):
            pair.leaks += 1
            pair.gone += found.state == GONE
        else:
            pair.resets += 1
            pair.by_node += found.by_node
        pair.connections += found.first
        client = found.client.address
        pair.clients[client if client in pair.clients or len(pair.clients) < _CLIENTS else OTHERS] += 1

    def _pair(self, target: SocketAddress, endpoint: SocketAddress) -> Pair:
        key = (str(target), str(endpoint))
        if key not in self.pairs and len(self.pairs) >= _MOST:
            key = (OTHERS, OTHERS)
        return self.pairs.setdefault(key, Pair())

    def total(self, what: str) -> int:
        """Return a count of :class:`Pair` over all of them."""
        return sum(getattr(pair, what) for pair in self.pairs.values())

    @property
    def answer(self) -> Answer:
        """Whether the node suffers from the bug."""
        if self.total("leaks") or self.total("resets"):
            return Answer.SUFFERS
        return Answer.NO if self.connections and not self.missed else Answer.UNKNOWN
