# SPDX-License-Identifier: MIT
"""Captures of the newer form (draft-ietf-opsawg-pcapng): sections, and in each its interfaces."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.capture.frames import LONGEST, Frame, Note, Source
from lab.capture.headers import tcp_packet
from lab.capture.link import Finder, finder

MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_LITTLE: Final = b"\x4d\x3c\x2b\x1a"
_BIG: Final = b"\x1a\x2b\x3c\x4d"
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_NAME, _RESOLUTION, _OFFSET = 2, 9, 14  # options of an interface
_FLAGS: Final = 2  # an option of a packet
_WAYS: Final = {1: False, 2: True}  # the lowest bits of it: inbound, outbound
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True)
class _Interface:
    """Where packets were captured.

    :param units: of its times, in a second.
    :param offset: in seconds, what is to be added to its times.
    """

    name: str
    find: Finder | None
    link: int
    snaplen: int
    units: int
    offset: int

    def time(self, high: int, low: int) -> int:
        """Return a time in nanoseconds."""
        return ((high << 32 | low) * _SECOND // self.units) + self.offset * _SECOND


def frames(source: Source, note: Note) -> Iterator[Frame]:
    """Yield the TCP packets of a capture, of which its first four bytes are read.

    :raises Cut: it ends in the middle of a block.
    :raises InputError: it is broken.
    """
    number, section, order = 0, -1, "<"
    interfaces: list[_Interface] = []
    kind_bytes = MAGIC
    while kind_bytes:
        begun = source.place - 4
        if kind_bytes == MAGIC:
            order = _begin(source, begun)
            section, interfaces = section + 1, []
        else:
            kind, body = _block(source, kind_bytes, order, begun)
            if kind == _INTERFACE:
                interfaces.append(_interface(body, order, len(interfaces)))
            elif kind in (_PACKET, _OLD_PACKET, _SIMPLE):
                number += 1
                frame = _frame(source, kind, body, order, interfaces, number, section, note)
                if frame is not None:
                    yield frame
        kind_bytes = source.take(4)


def _begin(source: Source, begun: int) -> str:
    """Return the order of a section's bytes, at the block that begins it."""
    length_bytes, magic = source.all_of(4, begun), source.all_of(4, begun)
    if magic not in (_LITTLE, _BIG):
        raise source.broken(f"the section at byte {begun:,} has no order of bytes")
    order = "<" if magic == _LITTLE else ">"
    (length,) = struct.unpack(f"{order}I", length_bytes)
    _check(source, length, begun, least=28)
    source.all_of(length - 12, begun)
    return order


def _check(source: Source, length: int, begun: int, *, least: int = 12) -> None:
    if length % 4 or not least <= length <= LONGEST:
        raise source.broken(f"the block at byte {begun:,} is said to have {length:,} bytes")


def _block(source: Source, kind_bytes: bytes, order: str, begun: int) -> tuple[int, bytes]:
    (kind,) = struct.unpack(f"{order}I", kind_bytes)
    (length,) = struct.unpack(f"{order}I", source.all_of(4, begun))
    _check(source, length, begun)
    body = source.all_of(length - 8, begun)
    if struct.unpack_from(f"{order}I", body, length - 12)[0] != length:
        raise source.broken(f"the block at byte {begun:,} has another length at its end")
    return kind, body[:-4]


def _options(body: bytes, at: int, order: str) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        if code == 0:
            return
        yield code, body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4


def _interface(body: bytes, order: str, index: int) -> _Interface:
    link, snaplen = struct.unpack_from(f"{order}HxxI", body)
    options = dict(_options(body, 8, order))
    resolution = (options.get(_RESOLUTION) or b"\x06")[0]
    units = 1 << (resolution & 0x7F) if resolution & 0x80 else 10 ** int(resolution)
    offset = int.from_bytes(options.get(_OFFSET, b""), "little" if order == "<" else "big", signed=True)
    name = options.get(_NAME, b"").decode(errors="replace") or f"interface {index}"
    return _Interface(name, finder(link), link, snaplen, units, offset)


def _frame(
    source: Source,
    kind: int,
    body: bytes,
    order: str,
    interfaces: list[_Interface],
    number: int,
    section: int,
    note: Note,
) -> Frame | None:
    high = low = 0
    way = None
    try:
        if kind == _PACKET:
            index, high, low, kept = struct.unpack_from(f"{order}IIII", body)
            options = 20 + kept + -kept % 4
            data = body[20 : 20 + kept]
        elif kind == _OLD_PACKET:
            index, high, low, kept = struct.unpack_from(f"{order}HxxIII", body)
            options = 20 + kept + -kept % 4
            data = body[20 : 20 + kept]
        else:
            index, options = 0, len(body)
            data = body[4 : 4 + struct.unpack_from(f"{order}I", body)[0]]
        interface = interfaces[index]
    except (struct.error, IndexError):
        raise source.broken(f"packet {number} before byte {source.place:,} has no interface, or no length") from None
    if interface.find is None:
        note(f"link {interface.link}")
        return None
    found = interface.find(data)
    packet = tcp_packet(data, found[0]) if found else None
    if found is None or packet is None:
        note("other")
        return None
    if options < len(body):
        flags = dict(_options(body, options, order)).get(_FLAGS, b"")
        if len(flags) == 4:
            way = _WAYS.get(struct.unpack(f"{order}I", flags)[0] & 3)
    name = f"{interface.name} {found[2]}" if found[2] else interface.name
    return Frame(
        interface.time(high, low), name, found[1] if way is None else way, packet, number, section, data, found[0]
    )
