# SPDX-License-Identifier: MIT
"""Where the IP packet begins in what a link carries (https://www.tcpdump.org/linktypes.html)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

#: What is found of a packet: where its IP header begins, whether it was sent by the machine that captured (None where
#: the link does not say), and the index of its interface (0 likewise). None where there is no IP packet.
Found: TypeAlias = tuple[int, bool | None, int] | None
Finder: TypeAlias = Callable[[bytes], Found]

_IP: Final = frozenset({b"\x08\x00", b"\x86\xdd"})
_TAGS: Final = frozenset({b"\x81\x00", b"\x88\xa8", b"\x91\x00"})  # IEEE 802.1Q, 802.1ad, and what was before it
#: Where IP begins on an Ethernet, with up to two VLAN tags.
BEHIND_ETHERNET: Final = (14, 18, 22)
_OUTGOING: Final = 4  # PACKET_OUTGOING, include/uapi/linux/if_packet.h


def ip_behind(data: bytes, at: int) -> int:
    """Return where the IP header begins by the EtherType at a place, behind VLAN tags; 0 where there is none."""
    kind = data[at : at + 2]
    while kind in _TAGS:
        at += 4
        kind = data[at : at + 2]
    return at + 2 if kind in _IP else 0


def _raw(_data: bytes) -> Found:
    return 0, None, 0


def _null(_data: bytes) -> Found:
    return 4, None, 0


def _ethernet(data: bytes) -> Found:
    if data[12:14] in _IP:
        return 14, None, 0
    at = ip_behind(data, 12)
    return (at, None, 0) if at else None


def _cooked(data: bytes) -> Found:
    if len(data) < 16:
        return None
    if data[14:16] in _IP:
        at = 16
    elif data[14:16] in _TAGS:
        at = ip_behind(data, 18)  # behind the header is the tag, then what it is of
    else:
        return None
    return (at, data[1] == _OUTGOING, 0) if at else None


def _cooked_2(data: bytes) -> Found:
    if len(data) < 20:
        return None
    at = 20 if data[:2] in _IP else ip_behind(data, 22) if data[:2] in _TAGS else 0
    return (at, data[10] == _OUTGOING, int.from_bytes(data[4:8], "big")) if at else None


#: By LINKTYPE_.
_FINDERS: Final[dict[int, Finder]] = {
    0: _null,
    1: _ethernet,
    **dict.fromkeys((12, 14, 101, 228, 229), _raw),
    108: _null,
    113: _cooked,
    276: _cooked_2,
}

KNOWN: Final = "Ethernet, raw IP, loopback, and Linux cooked (-i any) of both versions"


def finder(link: int) -> Finder | None:
    """Return what finds the IP packet on a type of link, LINKTYPE_; None where that is not known here."""
    return _FINDERS.get(link)
