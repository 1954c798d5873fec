# SPDX-License-Identifier: MIT
"""Which packets are a flow's own, where others send theirs beside it."""

from __future__ import annotations

from lab.conntrack.flows import Flow
from lab.evidence.packet import Ends, Packet


class OwnFlow:
    """The packets of one flow, by their ends and by what address translation leaves as it is.

    To be asked of packets in the order in which they passed: by each that is its own more ends become known.

    :ivar ends: with the protocol's number: as its packets had them so far.
    """

    def __init__(self, protocol: int, ends: Ends) -> None:
        self.ends = {(protocol, ends)}
        self._alike: set[tuple[object, ...]] = set()

    def has(self, packet: Packet) -> bool:
        """Check whether a packet is the flow's own, or an ICMP error about one."""
        if packet.icmp is not None:
            quoted = packet.icmp.quoted
            return quoted is not None and any(ends in (quoted, quoted[::-1]) for _protocol, ends in self.ends)
        ends = (packet.source, packet.destination)
        key, back = (packet.protocol, ends), (packet.protocol, ends[::-1])
        if not (packet.likeness in self._alike or key in self.ends or back in self.ends):
            return False
        if back not in self.ends:
            self.ends.add(key)
        self.recognize(packet)
        return True

    def recognize(self, packet: Packet) -> None:
        """Take note of what translation leaves of a packet, where that tells it from others."""
        # Of IPv6 nothing but the length tells datagrams apart; of IPv4 nothing does where the number is 0.
        if packet.tcp is not None or packet.identification or ":" in packet.source.address:
            self._alike.add(packet.likeness)


def ends_of(flow: Flow) -> tuple[int, Ends]:
    """Return the ends of an entry's first packet, with the protocol's number."""
    return flow.number, flow.original.ends
