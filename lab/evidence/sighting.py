# SPDX-License-Identifier: MIT
"""A sighting: one packet at one interface of one host, at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lab.evidence.packet import Packet

#: In place of an interface: where a host's own sockets take packets from.
LOCAL: Final = "(socket)"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One packet at one interface.

    ``time`` is the kernel's clock (CLOCK_REALTIME) in nanoseconds when the packet passed.

    :param data: the packet's own bytes, from its IP header on, all of them; empty where they were not kept.
    """

    time: int
    host: str
    interface: str
    outgoing: bool
    packet: Packet
    data: bytes = field(default=b"", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.packet} {'from' if self.outgoing else 'at'} {self.host} {self.interface}"
