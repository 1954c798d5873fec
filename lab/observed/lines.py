# SPDX-License-Identifier: MIT
"""What is seen as lines of text, and as data for programs: a packet, an entry's event, a leak, a reset."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from lab.capture.headers import checksum_is_wrong
from lab.evidence.entry import Entry, EntryEvent
from lab.evidence.packet import ICMP, ICMPV6, SCTP, TCP, UDP, Packet
from lab.evidence.sighting import Sighting
from lab.observed.found import GONE, Finding, Leak, Reset
from lab.observed.told import EntryTold, LeakFound, Line, Model, PacketSeen, ResetFound

_PROTOCOLS: Final = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6", SCTP: "sctp"}
_CONDITIONS: Final = {"flags": "its flags", "reset": "a RST behind the window", "state": "its state"}


@dataclass(frozen=True, slots=True)
class Told:
    """What conntrack of one host told, and when that was read.

    :param time: nanoseconds since the epoch.
    """

    time: int
    host: str
    event: EntryEvent


Seen: TypeAlias = Sighting | Told | Leak | Reset


def when(seen: Seen) -> int:
    """Return the time of what was seen, in nanoseconds since the epoch."""
    return seen.time if isinstance(seen, Sighting | Told) else seen.sighting.time


def clock(nanoseconds: int) -> str:
    """Return a time of the day, as this machine has it, in microseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06d}"


def line(seen: Seen) -> str:
    """Return what was seen, in a line."""
    return f"{clock(when(seen))}  {words(seen)}"


def words(seen: Seen) -> str:
    """Return what was seen, without its time."""
    if isinstance(seen, Sighting):
        return f"{place(seen)}  {packet(seen.packet)}"
    if isinstance(seen, Told):
        return f"{seen.host} conntrack  {seen.event.kind} {entry(seen.event.entry)}"
    return f"{place(seen.sighting)}  {finding(seen)}"


def place(seen: Sighting) -> str:
    """Return where a packet was seen: which way at which interface."""
    return f"{seen.host} {seen.interface} {'>' if seen.outgoing else '<'}"


def packet(seen: Packet) -> str:
    """Return a packet's addresses, flags and numbers."""
    ends = f"{seen.source} > {seen.destination}"
    if (tcp := seen.tcp) is None:
        kind = f" {seen.icmp.kind}/{seen.icmp.code}" if seen.icmp is not None else ""
        return f"{ends} {protocol(seen.protocol)}{kind} len {seen.payload_length}"
    length = f" len {seen.payload_length}" if seen.payload_length else ""
    acknowledged = f" ack {tcp.acknowledgement}" if "ACK" in tcp.flag_names else ""
    return f"{ends} {tcp.flag_names} seq {tcp.sequence}{length}{acknowledged} win {tcp.window}"


def protocol(number: int) -> str:
    """Return the name of a protocol, or its number."""
    return _PROTOCOLS.get(number, f"protocol {number}")


def entry(told: Entry) -> str:
    """Return an entry: state, addresses, and what they are translated to."""
    state = f"{told.tcp_state} " if told.tcp_state else ""
    return f"{protocol(told.protocol)} {state}{translated(told)}"


def translated(told: Entry) -> str:
    """Return whom an entry's client asks, and as what that arrives where it differs."""
    (client, target), (endpoint, peer) = told.original, told.reply
    to = f" = {endpoint}" if endpoint != target else ""
    as_ = f" as {peer}" if peer != client else ""
    return f"{client} > {target}{to}{as_}"


def finding(found: Finding) -> str:
    """Return what is wrong with a packet."""
    seen = packet(found.sighting.packet)
    if isinstance(found, Leak):
        return (
            f"LEAK  {seen}: from the endpoint's address; {found.client} only knows {found.target}. {_state(found)}"
            f"{_why(found)}{_harmless(found)}"
        )
    who = "the node itself" if found.by_node else "the client"
    what = "answers it" if found.leak is not None else "answers what was not translated"
    return f"RESET  {seen}: the RST of {who} {what}; it asked {found.target}. {_state(found)}{_harmless(found)}"


def _state(found: Finding) -> str:
    if found.state == GONE:
        return "Its entry is gone"
    return f"Its entry: {found.state}" if found.state else "It has an entry"


def _why(leak: Leak) -> str:
    word = leak.word
    if word is None or leak.state == GONE:
        return ""
    if word.by == "window":
        plural = "byte" if word.excess == 1 else "bytes"
        return f"; {word.judgement} by condition {word.condition}, {word.excess:,} {plural} out of the window"
    if word.by:
        return f"; {word.judgement} by {_CONDITIONS[word.by]}"
    if checksum_is_wrong(leak.sighting.data, 0):
        return "; its checksum is wrong"
    return "; its numbers are within the window"


def _harmless(found: Finding) -> str:
    return "; the connection was over" if found.over else ""


def told(seen: Seen) -> Line:
    """Return what was seen for a program."""
    if isinstance(seen, Sighting):
        return PacketSeen(**_sighting(seen))
    if isinstance(seen, Told):
        return EntryTold(time=seen.time, host=seen.host, event=seen.event.kind, **_entry(seen.event.entry))
    common = {
        **_sighting(seen.sighting),
        "client": str(seen.client),
        "target": str(seen.target),
        "endpoint": str(seen.endpoint),
        "entry": seen.state,
        "over": seen.over,
    }
    if isinstance(seen, Leak):
        word = seen.word
        judged = None if word is None else Model(judgement=str(word.judgement), by=word.by, excess=word.excess)
        return LeakFound(**common, model=judged)
    answered = None if seen.leak is None else seen.leak.sighting.time
    return ResetFound(**common, by_node=seen.by_node, leak_time=answered)


def _sighting(seen: Sighting) -> dict[str, Any]:
    tcp = seen.packet.tcp
    return {
        "time": seen.time,
        "host": seen.host,
        "interface": seen.interface,
        "outgoing": seen.outgoing,
        "source": str(seen.packet.source),
        "destination": str(seen.packet.destination),
        "protocol": protocol(seen.packet.protocol),
        "length": seen.packet.payload_length,
        "flags": tcp and tcp.flag_names,
        "sequence": tcp and tcp.sequence,
        "acknowledgement": tcp and tcp.acknowledgement,
        "window": tcp and tcp.window,
    }


def _entry(told: Entry) -> dict[str, Any]:
    (client, target), (endpoint, peer) = told.original, told.reply
    tuples = {"client": str(client), "target": str(target), "endpoint": str(endpoint), "peer": str(peer)}
    return {"protocol": protocol(told.protocol), "state": told.tcp_state, **tuples}
