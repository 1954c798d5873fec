# SPDX-License-Identifier: MIT
"""A judgement: what conntrack of one node made of one packet, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.evidence.packet import TCP, UDP, Packet


class Judgement(StrEnum):
    """What conntrack made of one packet."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"  # let through and translated, though the window check did not like it
    INVALID = "INVALID"
    NEW = "NEW"
    RELATED = "RELATED"
    UNTRACKED = "UNTRACKED"


@dataclass(frozen=True, slots=True)
class Judged:
    """One packet as it came to a node, what conntrack made of it, and the kernel's reason if it gave one."""

    host: str
    time: int | None
    packet: Packet
    state: str
    reason: str

    @property
    def judgement(self) -> Judgement:
        """The judgement in the lab's words."""
        if self.state == "established":
            return Judgement.IGNORED if self.reason else Judgement.ACCEPTED
        return Judgement(self.state.upper())

    @property
    def counts_as_invalid(self) -> bool:
        """Whether ``conntrack -S`` counts it as invalid: no error of ICMP, and nothing that never came to conntrack.

        A datagram that did, and is INVALID, has a reason (udp_error in nf_conntrack_proto_udp.c).
        """
        has_come = self.packet.protocol == TCP or (self.packet.protocol == UDP and self.reason != "")
        return self.state == "invalid" and has_come
