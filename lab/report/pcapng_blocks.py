# SPDX-License-Identifier: MIT
"""The blocks of a capture that Wireshark opens, in the form of draft-ietf-opsawg-pcapng, with times in nanoseconds."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

#: Link types (draft-ietf-opsawg-pcaplinktype): a packet begins with its Ethernet header, or with that of IP.
ETHERNET, RAW = 1, 101
#: Nanoseconds; a packet's time has no more bits.
LATEST: Final = 1 << 64

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 6  # an enhanced packet block
_BYTE_ORDER: Final = 0x1A2B3C4D
_ANY_LENGTH: Final = 0xFFFFFFFFFFFFFFFF

# Options: of every block, and of these blocks alone.
_END, _COMMENT = 0, 1
_OS, _PROGRAM = 3, 4
_NAME, _DESCRIPTION, _RESOLUTION, _INTERFACE_OS = 2, 3, 9, 12
_FLAGS: Final = 2
_INBOUND, _OUTBOUND = 1, 2
_NANOSECONDS: Final = b"\x09"  # 10^-9 s
_LONGEST: Final = 0xFFFF  # bytes that an option has room for

#: One option of a block: its code and its value.
_Option = tuple[int, str | bytes]


def section(lab: str, kernel: str, comment: str) -> bytes:
    """Return the block that begins a section.

    :param lab: the lab's version; ``kernel``: the release of the kernel that the packets passed.
    """
    body = struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _ANY_LENGTH)
    program = f"kube-proxy-lab {lab}"
    return _block(_SECTION, body, ((_COMMENT, comment), (_OS, f"Linux {kernel}"), (_PROGRAM, program)))


def interface(host: str, name: str, role: str, kernel: str, link: int = RAW) -> bytes:
    """Return the block of an interface of a host; in a section they are numbered from 0.

    :param role: what the host is there; may be empty.
    :param link: :data:`ETHERNET` or :data:`RAW`.
    """
    words = f"{name} in the network namespace of {host}" + (f" ({role})" if role else "")
    named = ((_NAME, f"{host}:{name}"), (_DESCRIPTION, words), (_RESOLUTION, _NANOSECONDS))
    return _block(_INTERFACE, struct.pack("<HHI", link, 0, 0), (*named, (_INTERFACE_OS, f"Linux {kernel}")))


def packet(
    interface: int,
    time: int,
    data: bytes,
    *,
    outgoing: bool,
    comments: Iterable[str] = (),
    length: int | None = None,
) -> bytes:
    """Return the block of a packet.

    :param time: nanoseconds since the epoch.
    :param length: of the packet, where ``data`` is its beginning alone.
    """
    high, low = divmod(time, 1 << 32)
    head = struct.pack("<IIIII", interface, high, low, len(data), len(data) if length is None else length)
    way = struct.pack("<I", _OUTBOUND if outgoing else _INBOUND)
    return _block(_PACKET, head + _padded(data), (*((_COMMENT, one) for one in comments), (_FLAGS, way)))


def _block(kind: int, body: bytes, options: Iterable[_Option]) -> bytes:
    whole = body + b"".join(map(_option, options)) + struct.pack("<HH", _END, 0)
    length = struct.pack("<I", 12 + len(whole))
    return struct.pack("<I", kind) + length + whole + length


def _option(option: _Option) -> bytes:
    code, value = option
    data = value if isinstance(value, bytes) else value.encode()[:_LONGEST].decode(errors="ignore").encode()
    return struct.pack("<HH", code, len(data)) + _padded(data)


def _padded(data: bytes) -> bytes:
    """Fill up to 32 bits, as every part of a block is."""
    return data + bytes(-len(data) % 4)
