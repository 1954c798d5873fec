# SPDX-License-Identifier: MIT
"""What became of a trial, and what decided it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.evidence.judgement import Judgement


class Outcome(StrEnum):
    """What became of the connection and of the packet that was to disturb it."""

    RESET = "reset"  # the sender's socket was reset by the answer to a packet that leaked
    DROPPED = "dropped"  # the packet reached nobody, and the connection lives
    # The packet reached its receiver, translated as it has to be, and the connection lives; by datagram: all is
    # answered from the address that was asked.
    DELIVERED = "delivered"
    CONNECTED = "connected"  # there was no packet to judge, and the connection did all that it should
    # The packet reached somebody without its translation, and the connection lives all the same; by datagram: an answer
    # did, and the client's socket did not take it.
    LEAKED = "leaked"
    RETRIED = "retried"  # reset, but the application began again on another connection, and nobody noticed
    KILLED = "killed"  # the packet itself ended the connection, as a packet of its sender's would; nothing leaked
    # There was no connection at all, whether somebody refused it or nobody answered; or a datagram was refused.
    REFUSED = "refused"
    STALLED = "stalled"  # the connection, or its handshake, neither went on nor ended
    DUPLICATED = "duplicated"  # a copy of a datagram came to its receiver as well
    # The connection ended with an error that no packet explains; its first packet, a datagram or its answer got lost.
    LOST = "lost"


@dataclass(frozen=True)
class Verdict:
    """The outcome, and what decided it.

    :param judgement: what conntrack made of the injected packet; None where it never came to the node.
    :param reason: the kernel's own words about it; empty where it had none.
    :param because: the evidence, a sentence each.
    :param disagreements: where two sources contradict each other, or the case's own checks do not hold; not empty
        means: do not believe the outcome.
    :param findings: what kernels may differ in, in words that are the same where they do not.
    """

    outcome: Outcome
    judgement: Judgement | None
    reason: str
    because: tuple[str, ...]
    disagreements: tuple[str, ...]
    findings: tuple[str, ...] = ()

    @property
    def decided_by(self) -> str:
        """What decided it, in a few words for a table."""
        return f"{self.judgement or 'not judged'}, {self.because[0]}"
