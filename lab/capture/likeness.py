# SPDX-License-Identifier: MIT
"""What a translation leaves of a packet as it is: by that its copies at several points are known."""

from __future__ import annotations

from typing import Final

from lab.capture.frames import Frame
from lab.capture.headers import udp_payload

COMPARED: Final = 64  #: bytes of a payload


def likeness(frame: Frame) -> tuple[object, ...]:
    """Return what the copies of one packet agree in, however it is translated."""
    packet = frame.packet
    tcp = packet.tcp
    if tcp is None:
        return (
            packet.protocol,
            packet.identification,
            packet.payload_length,
            payload(frame),
        )
    numbers = (tcp.sequence, tcp.acknowledgement, tcp.flags, tcp.window, tcp.timestamps)
    return (*numbers, packet.payload_length, packet.identification)


def payload(frame: Frame) -> bytes:
    """Return the first bytes of what a datagram carries."""
    return udp_payload(frame.data, frame.at)[:COMPARED]
