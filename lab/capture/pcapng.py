# SPDX-License-Identifier: MIT
"""Captures of the newer form (draft-ietf-opsawg-pcapng): sections, and in each its interfaces."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from lab.capture.frames import LONGEST, Cut, Frame, Note, Source, Taker
from lab.capture.link import Finder, finder
from lab.capture.packets import frame_of
from lab.capture.settled import Record, by_time

if TYPE_CHECKING:
    from lab.capture.plain import Plain

MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_LITTLE: Final = b"\x4d\x3c\x2b\x1a"
_BIG: Final = b"\x1a\x2b\x3c\x4d"
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_PACKETS: Final = frozenset({_OLD_PACKET, _SIMPLE, _PACKET})
_HEADS: Final = {order: struct.Struct(f"{order}IIII") for order in "<>"}
_NAME, _RESOLUTION, _OFFSET = 2, 9, 14  # options of an interface
_FLAGS: Final = 2  # an option of a packet
_WAYS: Final = {1: False, 2: True}  # the lowest bits of it: inbound, outbound
_SECOND: Final = 1_000_000_000
_BATCH: Final = 4096  # packets


@dataclass(frozen=True)
class _Interface:
    """Where packets were captured.

    :param units: of its times, in a second.
    :param offset: in seconds, what is to be added to its times.
    :param take: takes packets of which there is nothing to tell.
    """

    name: str
    find: Finder | None
    link: int
    snaplen: int
    units: int
    offset: int
    take: Taker | None = None

    def time(self, high: int, low: int) -> int:
        """Return a time in nanoseconds."""
        return ((high << 32 | low) * _SECOND // self.units) + self.offset * _SECOND


def frames(source: Source, note: Note, plain: Plain | None = None) -> Iterator[Frame]:
    """Yield the packets of a capture, of which its first four bytes are read.

    :param plain: takes those of which there is nothing to tell.
    :raises Cut: it ends in the middle of a block.
    :raises InputError: it is broken.
    """
    records = _records(source, plain)
    for batch in by_time(records, source.lines):
        for _time, section, number, kind, order, data, at, end, interfaces in batch:
            if kind == _PACKET and _is_taken(source, data, at, end, order, interfaces, number):
                continue
            frame = _frame(source, kind, data[at:end], order, interfaces, number, section, note)
            if frame is not None:
                yield frame


def _records(source: Source, plain: Plain | None) -> Iterator[list[Record]]:
    """Yield the packets in batches: time, section, number, and what their blocks are."""
    number, section, time = 0, -1, 0
    interfaces: list[_Interface] = []
    batch: list[Record] = []
    try:
        for kind, order, data, at, end in _blocks(source):
            if kind == _SECTION:
                section, interfaces = section + 1, []
            elif kind == _INTERFACE:
                made = _interface(data[at:end], order, len(interfaces))
                stream = (source.name, made.name, None)
                take = plain.taker(made.link, section, stream) if plain is not None else None
                interfaces.append(replace(made, take=take))
            elif kind in _PACKETS:
                number += 1
                if kind == _PACKET and end - at >= 20:
                    index, high, low, _kept = _HEADS[order].unpack_from(data, at)
                    time = interfaces[index].time(high, low) if index < len(interfaces) else time
                batch.append((time, section, number, kind, order, data, at, end, interfaces))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
    except Cut:
        yield batch
        raise
    yield batch


def _is_taken(
    source: Source, data: bytes, at: int, end: int, order: str, interfaces: list[_Interface], number: int
) -> bool:
    """Check whether there is nothing to tell of a packet, which then is taken in."""
    if end - at < 20:
        return False
    index, high, low, kept = _HEADS[order].unpack_from(data, at)
    # Options may tell the way that it went.
    if index >= len(interfaces) or at + 20 + kept + -kept % 4 != end:
        return False
    interface = interfaces[index]
    source.last = interface.time(high, low)
    return interface.take is not None and interface.take(data, at + 20, kept, number, source.last)


def _blocks(source: Source) -> Iterator[tuple[int, str, bytes, int, int]]:
    """Yield each block: its kind, the order of its bytes, and where in the last bytes that were read its body is."""
    order = "<"
    data, at = MAGIC, 0
    while data:
        begins = data[at : at + 4] == MAGIC
        end = at + (12 if begins else 8)
        if end <= len(data):
            if begins:
                order = _order(source, data, at)
            kind, length = struct.unpack_from(f"{order}II", data, at)
            _check(source, data, at, length, least=28 if begins else 12)
            end = at + length
        if end > len(data):
            data, at = source.more(data, at), 0
            continue
        if struct.unpack_from(f"{order}I", data, end - 4)[0] != length:
            raise source.broken(f"the block at byte {_place(source, data, at):,} has another length at its end")
        yield kind, order, data, at + 8, end - 4
        at = end


def _place(source: Source, data: bytes, at: int) -> int:
    """Return which byte of the file one of those is that were read last."""
    return source.place - (len(data) - at)


def _order(source: Source, data: bytes, at: int) -> str:
    """Return the order of a section's bytes, at the block that begins it."""
    magic = data[at + 8 : at + 12]
    if magic not in (_LITTLE, _BIG):
        raise source.broken(f"the section at byte {_place(source, data, at):,} has no order of bytes")
    return "<" if magic == _LITTLE else ">"


def _check(source: Source, data: bytes, at: int, length: int, *, least: int) -> None:
    if length % 4 or not least <= length <= LONGEST:
        raise source.broken(f"the block at byte {_place(source, data, at):,} is said to have {length:,} bytes")


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
    source.last = interface.time(high, low)
    if interface.find is None:
        note(f"link {interface.link}")
        return None
    found = interface.find(data)
    if options < len(body):
        flags = dict(_options(body, options, order)).get(_FLAGS, b"")
        if len(flags) == 4:
            way = _WAYS.get(struct.unpack(f"{order}I", flags)[0] & 3)
    if found is not None and way is not None:
        found = (found[0], way, found[2])
    name = interface.name
    if found is not None and found[2]:  # the kernel's own number; what `-i any` is without a name tells nothing
        name = f"interface {found[2]}" if name == "interface 0" else f"{name} {found[2]}"
    return frame_of(data, found, interface.time(high, low), name, number, section, note)
