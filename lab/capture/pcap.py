# SPDX-License-Identifier: MIT
"""Classic captures (draft-ietf-opsawg-pcap): one link, one packet after the other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal

from lab.capture.frames import LONGEST, Frame, Note, Source
from lab.capture.headers import tcp_packet
from lab.capture.link import KNOWN, finder
from lab.errors import InputError

#: How a file begins: the order of its bytes, and how many nanoseconds its fractions of seconds have.
MAGIC: Final[dict[bytes, tuple[Literal["<", ">"], int]]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}


def frames(source: Source, begins: bytes, note: Note) -> Iterator[Frame]:
    """Yield the TCP packets of a capture, of which its first four bytes are read.

    :raises Cut: it ends in the middle of a packet.
    :raises InputError: it is broken, or of a link that is not known.
    """
    order, fraction = MAGIC[begins]
    (link,) = struct.unpack(f"{order}16xI", source.all_of(20, 0))
    find = finder(link & 0xFFFF)
    if find is None:
        raise InputError(f"link type {link & 0xFFFF} is not known here", source=source.name, cure=f"known: {KNOWN}")
    head = struct.Struct(f"{order}IIII")
    take, number = source.take, 0
    while header := take(16):
        seconds, part, kept, _length = head.unpack(header)
        begun = source.place - 16
        number += 1
        if kept > LONGEST:
            raise source.broken(f"packet {number} at byte {begun:,} is said to have {kept:,} bytes")
        data = source.all_of(kept, begun)
        found = find(data)
        packet = tcp_packet(data, found[0]) if found else None
        if found is None or packet is None:
            note("other")
            continue
        interface = f"interface {found[2]}" if found[2] else "any" if link == 113 else ""
        yield Frame(seconds * 1_000_000_000 + part * fraction, interface, found[1], packet, number, 0, data, found[0])
