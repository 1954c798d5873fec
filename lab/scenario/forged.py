# SPDX-License-Identifier: MIT
"""Segments as an end's own stack would send them next, but for what a case says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.evidence.follow import Side
from lab.evidence.packet import SocketAddress
from lab.wire.craft import IcmpError, Segment


def next_segment(
    sender: Side,
    receiver: Side,
    addresses: tuple[SocketAddress, SocketAddress],
    offset: int,
    payload: bytes,
    acknowledge: int,
    more: Mapping[str, object],
) -> Segment:
    """Return the next segment of a side, with its own numbers, window and timestamps.

    :param addresses: the source and destination.
    :param offset: added to its sequence number.
    :param acknowledge: added to its acknowledgement.
    :param more: other fields of :class:`lab.wire.craft.Segment`.
    """
    fields: dict[str, Any] = {"flags": "PA" if payload else "A", "timestamps": sender.timestamps, **more}
    numbers = (sender.sent + offset, receiver.sent + acknowledge)
    return Segment(*addresses, *numbers, window=sender.last_window_field, payload=payload, **fields)


def is_plain(packet: Segment | IcmpError) -> bool:
    """Check whether it is for the window check alone to judge a segment."""
    if isinstance(packet, IcmpError):
        return False
    return packet.flags in ("A", "PA") and packet.checksum is None and packet.header_words is None
