# SPDX-License-Identifier: MIT
"""What is seen as rows of a screen, short, and all of it where there is room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lab.evidence.packet import Packet
from lab.evidence.sighting import Sighting
from lab.observed import lines
from lab.observed.flows import Flow
from lab.observed.found import Leak
from lab.observed.lines import Seen, Told, clock, finding, protocol

FLOW_HEAD: Final = "STATE        FLOW: CLIENT > WHOM IT ASKS = AS WHAT THAT ARRIVES"
PACKET_HEAD: Final = "TIME          WHERE            PACKET"
_PLACE: Final = 15  # columns
_STATE: Final = 11


def flow_row(flow: Flow) -> str:
    """Return a flow in a row."""
    return f"{flow.state:{_STATE}}  {_marks(flow)}{flow}  {_counts(flow)}"


def _marks(flow: Flow) -> str:
    found = ((flow.leaks, "LEAK"), (flow.resets, "RESET"))
    marks = " ".join(f"{word} {count}" if count > 1 else word for count, word in found if count)
    return f"{marks}  " if marks else ""


def _counts(flow: Flow) -> str:
    return f"{flow.packets(from_client=True):,}> {flow.packets(from_client=False):,}<"


def packet_row(seen: Seen) -> str:
    """Return a packet, an event of an entry, a leak or a reset in a row."""
    if isinstance(seen, Told):
        where = f"{seen.host} conntrack"
        return f"{_clock(seen.time)}  {where:{_PLACE}}  {seen.event.kind} {lines.entry(seen.event.entry)}"
    sighting = seen if isinstance(seen, Sighting) else seen.sighting
    where = f"{_clock(sighting.time)}  {lines.place(sighting):{_PLACE}}  "
    if isinstance(seen, Sighting):
        return where + _short(seen.packet)
    word = "LEAK" if isinstance(seen, Leak) else "RESET"
    return f"{where}{word}  {seen.sighting.packet}  of {seen.target}"


def _short(packet: Packet) -> str:
    """Return a packet with what matters most first: there may be no room for the rest."""
    if (tcp := packet.tcp) is None:
        return lines.packet(packet)
    length = f" len {packet.payload_length}" if packet.payload_length else ""
    return f"{packet}{length}  seq {tcp.sequence} ack {tcp.acknowledgement} win {tcp.window}"


def _clock(nanoseconds: int) -> str:
    return clock(nanoseconds)[:-3]


def flow_details(flow: Flow) -> Iterator[str]:
    """Yield all that is known of a flow."""
    yield str(flow)
    counted = f"{flow.packets(from_client=True):,} packets from the client, {flow.packets(from_client=False):,} to it"
    yield f"{flow.state}; {counted}; {_clock(flow.first)} to {_clock(flow.last)}; at {', '.join(flow.hosts)}"
    if flow.entry is not None:
        yield f"entry: {flow.entry}"
    else:
        yield f"conntrack told of no entry; {protocol(flow.protocol)}"
    for found in flow.found:
        yield f"{clock(found.sighting.time)}  {finding(found)}"


def packet_details(seen: Seen, flow: Flow | None) -> Iterator[str]:
    """Yield all that is known of what was seen, and of which flow it is."""
    yield lines.line(seen)
    if isinstance(seen, Told):
        yield str(seen.event.entry)
        return
    tcp = (seen if isinstance(seen, Sighting) else seen.sighting).packet.tcp
    if tcp is not None and tcp.timestamps is not None:
        yield f"timestamps {tcp.timestamps[0]}, {tcp.timestamps[1]}"
    if tcp is not None and tcp.sack_blocks:
        yield "sack " + ", ".join(f"{begin}-{end}" for begin, end in tcp.sack_blocks)
    if flow is not None:
        yield f"of the flow {flow}, {flow.state}"
