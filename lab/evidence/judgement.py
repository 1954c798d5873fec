# SPDX-License-Identifier: MIT
"""A judgement: what conntrack of one node made of one packet, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.evidence.packet import Packet


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
