# SPDX-License-Identifier: MIT
"""The packet of a frame, which may be within others."""

from __future__ import annotations

from typing import Final

from lab.capture.frames import Frame, Note
from lab.capture.headers import quoted_ends, tcp_packet, udp_packet
from lab.capture.link import Found
from lab.capture.tunnels import inner
from lab.evidence.packet import BARRIER_PORT, Packet, decode, is_error

_REDIRECT: Final = 5  # RFC 792: the packet went on all the same
_DEEPEST: Final = 4  # tunnels within each other


def frame_of(data: bytes, found: Found, time: int, point: str, number: int, section: int, note: Note) -> Frame | None:
    """Return a frame with its innermost packet; None where that is neither TCP, UDP nor an ICMP error.

    :param found: what the link says of it.
    :param point: the interface.
    :param note: is told of what is left out.
    """
    if found is None:
        note("other")
        return None
    at, way, _index = found
    packet = tcp_packet(data, at)
    for _ in range(_DEEPEST):
        within = inner(data, at) if packet is None else None
        if within is None:
            break
        at, point = within.at, f"{point} in {within.tunnel}".lstrip()
        packet = tcp_packet(data, at)
    packet = packet or _other(data, at)
    if packet is None or _is_echo(packet, data, at):
        note("other" if packet is None else "echo")
        return None
    return Frame(time, point, way, packet, number, section, data, at)


def _other(data: bytes, at: int) -> Packet | None:
    datagram = udp_packet(data, at)
    if datagram is not None:
        return datagram
    packet = decode(data[at:])
    is_told = packet is not None and packet.icmp is not None and packet.icmp.kind != _REDIRECT and is_error(packet)
    return packet if is_told and quoted_ends(data, at) is not None else None


def _is_echo(packet: Packet, data: bytes, at: int) -> bool:
    """Check whether a datagram is such as the lab's own, or an error is about one."""
    quoted = quoted_ends(data, at) if packet.icmp is not None else None
    return packet.is_barrier or (quoted is not None and BARRIER_PORT in (quoted[0].port, quoted[1].port))
