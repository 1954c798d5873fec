# SPDX-License-Identifier: MIT
"""Which sets of TCP flags conntrack takes, and which it refuses before it looks at anything else."""

from __future__ import annotations

from typing import Final

from lab.evidence.packet import ACK, FIN, PSH, RST, SYN

URG: Final = 0x20

#: The sets that are taken; PSH, ECE and CWR go with any (tcp_valid_flags, net/netfilter/nf_conntrack_proto_tcp.c).
_TAKEN: Final = frozenset(
    {SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG},
)


def is_taken(flags: int) -> bool:
    """Check whether conntrack takes a segment with these flags for one that some TCP might send.

    :param flags: as in the header, without ECE and CWR.
    """
    return flags & ~PSH in _TAKEN


def sets() -> list[str]:
    """Return every set of the six flags as scapy writes it, those with RST last."""
    letters = (("F", FIN), ("S", SYN), ("R", RST), ("P", PSH), ("A", ACK), ("U", URG))
    numbers = sorted(range(1 << len(letters)), key=lambda flags: bool(flags & RST))
    return ["".join(letter for letter, bit in letters if flags & bit) for flags in numbers]
