# SPDX-License-Identifier: MIT
"""The table of states by which conntrack follows a TCP connection: ``tcp_conntracks``.

net/netfilter/nf_conntrack_proto_tcp.c, where it is the same from Linux 3.10 to 6.12.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from lab.evidence.packet import ACK, FIN, RST, SYN


class State(StrEnum):
    """The state of an entry, as ``conntrack -L`` names it; the last two are words of the table's alone."""

    NONE = "NONE"  # there is no entry
    SYN_SENT = "SYN_SENT"
    SYN_RECV = "SYN_RECV"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT = "FIN_WAIT"
    CLOSE_WAIT = "CLOSE_WAIT"
    LAST_ACK = "LAST_ACK"
    TIME_WAIT = "TIME_WAIT"
    CLOSE = "CLOSE"
    SYN_SENT2 = "SYN_SENT2"
    INVALID = "INVALID"
    IGNORED = "ignored"


class Kind(IntEnum):
    """What a segment is to the table, by its flags (enum tcp_bit_set)."""

    SYN = 0
    SYN_ACK = 1
    FIN = 2
    ACK = 3
    RST = 4
    NONE = 5


#: The columns of the table.
_STATES: Final = tuple(State)[:10]
_SHORT: Final = {
    **dict(zip(("NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2"), _STATES, strict=True)),
    "IV": State.INVALID,
    "IG": State.IGNORED,
}
#: By direction, that of the entry's first packet first, and by kind.
_ROWS: Final = (
    (
        "SS SS IG IG IG IG IG SS SS S2",
        "IV IV SR IV IV IV IV IV IV SR",
        "IV IV FW FW LA LA LA TW CL IV",
        "ES IV ES ES CW CW TW TW CL IV",
        "IV CL CL CL CL CL CL CL CL CL",
    ),
    (
        "IV S2 IV IV IV IV IV SS IV S2",
        "IV SR IG IG IG IG IG IG IG SR",
        "IV IV FW FW LA LA LA TW CL IV",
        "IV IG SR ES CW CW TW TW CL IG",
        "IV CL CL CL CL CL CL CL CL CL",
    ),
)
_NEXT: Final[Mapping[tuple[bool, Kind, State], State]] = MappingProxyType(
    {
        (way == 0, Kind(kind), state): _SHORT[short]
        for way, rows in enumerate(_ROWS)
        for kind, row in enumerate(rows)
        for state, short in zip(_STATES, row.split(), strict=True)
    }
)

#: States of an entry that is not answered yet, or was not when it was looked at last.
OPENING: Final = frozenset({State.SYN_SENT, State.SYN_RECV})
#: States in which both sides have said that they go, or one has reset.
OVER: Final = frozenset({State.LAST_ACK, State.TIME_WAIT, State.CLOSE})
#: States of a connection that may go away early (tcp_can_early_drop).
CLOSING: Final = frozenset({State.FIN_WAIT, State.CLOSE_WAIT, *OVER})


def kind_of(flags: int) -> Kind:
    """Return what a segment with these flags is to the table (get_conntrack_index)."""
    if flags & RST:
        return Kind.RST
    if flags & SYN:
        return Kind.SYN_ACK if flags & ACK else Kind.SYN
    if flags & FIN:
        return Kind.FIN
    return Kind.ACK if flags & ACK else Kind.NONE


def next_state(state: State, kind: Kind, *, original: bool) -> State:
    """Return what becomes of an entry by a segment, or that such a one is ignored or INVALID.

    :param original: whether it comes from the side that sent the entry's first packet.
    """
    return _NEXT.get((original, kind, state), State.INVALID)
