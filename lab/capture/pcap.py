# SPDX-License-Identifier: MIT
"""Classic captures (draft-ietf-opsawg-pcap): one link, one packet after the other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from lab.capture.frames import LONGEST, Frame, Note, Source
from lab.capture.link import KNOWN, finder
from lab.capture.packets import frame_of
from lab.capture.settled import Record, by_time
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.capture.plain import Plain

#: How a file begins: the order of its bytes, and how many nanoseconds its fractions of seconds have.
MAGIC: Final[dict[bytes, tuple[Literal["<", ">"], int]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}


def frames(source: Source, begins: bytes, note: Note, plain: Plain | None = None) -> Iterator[Frame]:
    """Yield the packets of a capture, of which its first four bytes are read.

    :param plain: takes those of which there is nothing to tell.
    :raises Cut: it ends in the middle of a packet.
    :raises InputError: it is broken, or of a link that is not known.
    """
    order, fraction = MAGIC[begins]
    (link,) = struct.unpack(f"{order}16xI", source.all_of(20, 0))
    link &= 0xFFFF
    find = finder(link)
    if find is None:
        raise InputError(f"link type {link} is not known here", source=source.name, cure=f"known: {KNOWN}")
    take = plain.taker(link, 0, (source.name, "", None)) if plain is not None else None
    records = _records(source, struct.Struct(f"{order}III4x"), fraction)
    for batch in by_time(records, source.lines):
        for time, _section, number, data, at, kept in batch:
            source.last = time
            if take is None or not take(data, at, kept, number, time):
                captured = data[at : at + kept]
                found = find(captured)
                point = f"interface {found[2]}" if found and found[2] else "any" if link == 113 else ""
                frame = frame_of(captured, found, time, point, number, 0, note)
                if frame is not None:
                    yield frame


def _records(source: Source, head: struct.Struct, fraction: int) -> Iterator[list[Record]]:
    """Yield the packets of each part of the file that is read: time, section, number, and where the bytes are."""
    unpack = head.unpack_from
    number, at = 0, 0
    data = source.more(b"", 0)
    while data:
        batch: list[Record] = []
        size = len(data)
        while at + 16 <= size:
            seconds, part, kept = unpack(data, at)
            end = at + 16 + kept
            if kept > LONGEST:
                begun = source.place - (size - at)
                raise source.broken(f"packet {number + 1} at byte {begun:,} is said to have {kept:,} bytes")
            if end > size:
                break
            number += 1
            batch.append((seconds * 1_000_000_000 + part * fraction, 0, number, data, at + 16, kept))
            at = end
        yield batch
        data, at = source.more(data, at), 0
