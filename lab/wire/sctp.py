# SPDX-License-Identifier: MIT
"""SCTP's packets of a handshake, made and read: RFC 9260, 3 (chunks) and appendix A (the checksum, CRC32c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Final

_HEADER: Final = struct.Struct("!HHI")  # ports and verification tag; the checksum follows in the other byte order
_CHUNK: Final = struct.Struct("!BBH")
_INIT: Final = struct.Struct("!IIHHI")  # initiate tag, window, streams out and in, first transmission number
_PARAMETER: Final = struct.Struct("!HH")
_COOKIE: Final = 7  # the parameter of an INIT ACK that a client sends back
_PADDING: Final = 0x8005  # RFC 4820, 4: of no meaning, and skipped by who does not know it
_WINDOW: Final = 65_536


class Kind(IntEnum):
    """What a chunk is: RFC 9260, 3.2."""

    INIT = 1
    INIT_ACK = 2
    ABORT = 6
    COOKIE_ECHO = 10
    COOKIE_ACK = 11


@dataclass(frozen=True)
class SctpPacket:
    """A packet with one chunk.

    :param tag: the verification tag: what its receiver has chosen, 0 of an INIT.
    :param initiate_tag: of INIT and INIT ACK, what their sender has chosen; 0 of others.
    :param cookie: of INIT ACK and COOKIE ECHO.
    :param padding: of INIT, in bytes, a multiple of four.
    """

    source_port: int
    destination_port: int
    kind: Kind
    tag: int = 0
    initiate_tag: int = 0
    cookie: bytes = b""
    padding: int = 0

    @property
    def data(self) -> bytes:
        """The packet from its SCTP header on, with its checksum."""
        body = b""
        if self.kind in (Kind.INIT, Kind.INIT_ACK):
            body = _INIT.pack(self.initiate_tag, _WINDOW, 1, 1, self.initiate_tag)
        if self.kind is Kind.INIT_ACK:
            body += _PARAMETER.pack(_COOKIE, _PARAMETER.size + len(self.cookie)) + self.cookie
        elif self.kind is Kind.COOKIE_ECHO:
            body += self.cookie
        if self.padding:
            body += _PARAMETER.pack(_PADDING, self.padding) + bytes(self.padding - _PARAMETER.size)
        chunk = _CHUNK.pack(self.kind, 0, _CHUNK.size + len(body)) + body + bytes(-len(body) % 4)
        head = _HEADER.pack(self.source_port, self.destination_port, self.tag)
        return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def read(data: bytes) -> SctpPacket | None:
    """Return what a packet's first chunk is, from the SCTP header on; None where it is none that a handshake has."""
    try:
        source_port, destination_port, tag = _HEADER.unpack_from(data)
        kind, _flags, length = _CHUNK.unpack_from(data, 12)
        found = Kind(kind)
        body = data[16 : 12 + length]
        initiate_tag = _INIT.unpack_from(body)[0] if found in (Kind.INIT, Kind.INIT_ACK) else 0
    except (struct.error, ValueError):
        return None
    cookie = body if found is Kind.COOKIE_ECHO else body[_INIT.size + _PARAMETER.size :]
    return SctpPacket(source_port, destination_port, found, tag, initiate_tag, cookie)


def crc32c(data: bytes) -> int:
    """Return the CRC32c of some bytes (RFC 9260, appendix A)."""
    table, found = _table(), 0xFFFFFFFF
    for byte in data:
        found = found >> 8 ^ table[(found ^ byte) & 0xFF]
    return found ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)  # noqa: PLW2901 - the polynomial, bits reversed
        table.append(number)
    return tuple(table)
