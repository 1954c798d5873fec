# SPDX-License-Identifier: MIT
"""Questions about what the instruments have seen, and the words of their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from lab.evidence.packet import Packet, SocketAddress, flags_of
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Injected, end_of_way
from lab.fabric.lab import Lab
from lab.scenario.astray import broken_links, why_astray
from lab.scenario.recorder import Recorder
from lab.scenario.unrouted import why_unrouted


class Which(TypedDict, total=False):
    """Which packets are meant.

    :param source: and ``destination``: only those with this address, or address and port.
    :param flags: only TCP segments that have all of these, written as scapy does: "SA".
    :param outgoing: only those that left the host, or only those that came to it.
    """

    source: SocketAddress | str | None
    destination: SocketAddress | str | None
    flags: str
    outgoing: bool | None


def matching(sighting: Sighting, at: str, which: Which) -> bool:
    """Check whether a packet was seen on a host's interfaces and is one of those that are meant, and no barrier."""
    packet, flags = sighting.packet, which.get("flags", "")
    return (
        sighting.host == at
        and not packet.is_barrier
        and which.get("outgoing") in (None, sighting.outgoing)
        and is_of(packet.source, which.get("source"))
        and is_of(packet.destination, which.get("destination"))
        and (not flags or has_flags(packet, flags))
    )


def has_flags(packet: Packet, flags: str) -> bool:
    """Check whether a packet is a TCP segment with all of these flags."""
    wanted = flags_of(flags)
    return packet.tcp is not None and packet.tcp.flags & wanted == wanted


def is_of(address: SocketAddress, wanted: SocketAddress | str | None) -> bool:
    """Check whether this is the address, or the address and port, that is wanted; None wants any."""
    return wanted is None or wanted in (address, address.address)


def has_come(injected: Injected, recorder: Recorder) -> bool:
    """Check whether the packet to be judged came to its receiver, or to the judging node's own sockets."""
    return any(
        (sighting.host == injected.receiver or sighting.interface == LOCAL)
        and not sighting.outgoing
        and sighting.packet.likeness == injected.packet.likeness
        for sighting in recorder.sightings
    )


def lost_where(packet: Packet, lab: Lab, recorder: Recorder) -> str:
    """Return where a packet was seen last, what the node there made of it, and why it went no further."""
    likeness = packet.likeness
    passed = {one.host for one in recorder.sightings if one.packet.likeness == likeness}
    where = _lost_where(packet, lab, recorder)
    return "; ".join((where, *(one for one in broken_links(lab, passed) if one not in where)))


def _lost_where(packet: Packet, lab: Lab, recorder: Recorder) -> str:
    last = end_of_way(packet, recorder.sightings)
    if last is None:
        return "was seen nowhere"
    if last.outgoing:
        why = why_astray(lab, last)
        return f"left {last.host} and came nowhere{why and f': {why}'}"
    words = [one for one in recorder.judged if one.packet.likeness == packet.likeness and one.host == last.host]
    judged = ""
    if words:
        reason = f" ({words[-1].reason})" if words[-1].reason else ""
        judged = f", {words[-1].judgement} there{reason}"
    if last.interface == LOCAL:
        return f"came to the sockets of {last.host} itself{judged}"
    why = why_unrouted(lab, last)
    return f"came to {last.host} and no further{judged}{why and f': {why}'}"


def why_lost(packet: Packet, lab: Lab, recorder: Recorder) -> str:
    """Return why the host to which a packet came last sent it nowhere; empty where that is not why it was lost."""
    last = end_of_way(packet, recorder.sightings)
    return "" if last is None or last.outgoing or last.interface == LOCAL else why_unrouted(lab, last)


def as_words(which: Which) -> str:
    """Return which packets are meant, for whoever reads the result."""
    flags, source, destination = which.get("flags"), which.get("source"), which.get("destination")
    parts = (
        f"{flags} segment" if flags else "packet",
        source and f"from {source}",
        destination and f"to {destination}",
    )
    return " ".join(str(part) for part in parts if part)


def readable(seen: object) -> str:
    """Return what was seen as a person would read it: several things one after the other."""
    if isinstance(seen, Mapping):
        return ", ".join(f"{key}: {value}" for key, value in seen.items()) or "none"
    if isinstance(seen, list | tuple | set | frozenset):
        return ", ".join(map(str, seen)) or "none"
    return str(seen)
