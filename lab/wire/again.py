# SPDX-License-Identifier: MIT
"""A TCP segment that was captured, between other addresses: its header as it was, its checksums anew."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

from lab.evidence.packet import TCP, SocketAddress

_CHECKSUM: Final = 16  # where it is in a TCP header (RFC 9293, 3.1)
_LONGEST: Final = 0xFFFF  # bytes of an IP packet


def again(source: SocketAddress, destination: SocketAddress, header: bytes, length: int, *, is_corrupt: bool) -> bytes:
    """Return an IP packet that carries a segment.

    :param header: of TCP, from the sequence number on, with its options.
    :param length: of its payload in bytes, which are all 0; at most what an IP packet has room for.
    :param is_corrupt: give it a wrong checksum.
    """
    addresses = ip_address(source.address).packed + ip_address(destination.address).packed
    around = len(header) + 4 + (20 if len(addresses) == 8 else 40)
    segment = bytearray(struct.pack("!HH", source.port, destination.port) + header)
    segment[_CHECKSUM : _CHECKSUM + 2] = b"\0\0"
    segment += bytes(min(length, _LONGEST - around))
    number = 0xFFFF - _sum(addresses + struct.pack("!II", len(segment), TCP) + segment)
    struct.pack_into("!H", segment, _CHECKSUM, number ^ 0x5555 if is_corrupt else number)
    if len(addresses) == 32:
        return struct.pack("!IHBB", 6 << 28, len(segment), TCP, 64) + addresses + segment
    begins = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, TCP, 0)
    checksum = 0xFFFF - _sum(begins + addresses)
    return begins[:10] + struct.pack("!H", checksum) + addresses + segment


def _sum(data: bytes) -> int:
    """Return the sum in ones' complement of words of 16 bits (RFC 1071)."""
    words = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total
