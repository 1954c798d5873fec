# SPDX-License-Identifier: MIT
"""A conntrack entry as plain data, and the events that tell of its life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.evidence.packet import SocketAddress

# enum tcp_conntrack, include/uapi/linux/netfilter/nf_conntrack_tcp.h
TCP_STATES: Final = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A conntrack entry: both tuples, its TCP state and what is left of its timeout in seconds."""

    protocol: int
    original: tuple[SocketAddress, SocketAddress]
    reply: tuple[SocketAddress, SocketAddress]
    tcp_state: str | None
    assured: bool
    timeout: int | None

    @property
    def translated(self) -> tuple[SocketAddress, SocketAddress]:
        """Source and destination of the original direction's packets, as they leave the node."""
        return self.reply[1], self.reply[0]

    def __str__(self) -> str:
        (source, destination), (answering, answered) = self.original, self.reply
        left = f", {self.timeout} s left" if self.timeout is not None else ""
        state = f"{self.tcp_state}, " if self.tcp_state else ""
        return f"an entry {state}{source} > {destination}, answered {answering} > {answered}{left}"


@dataclass(frozen=True, slots=True)
class EntryEvent:
    """A change of an entry: ``kind`` is new, update or destroy; or listed, for one that was there already."""

    kind: str
    entry: Entry
