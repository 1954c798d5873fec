# SPDX-License-Identifier: MIT
"""A filter for instruments beside which others use a lab: what is theirs, the kernel leaves out before it copies it.

Classic BPF as in :mod:`lab.wire.filter`, for a socket of SOCK_DGRAM: places are counted from the IP header on.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from lab.evidence.packet import TCP, UDP
from lab.netns.filters import (
    JUMP,
    JUMP_EQUAL,
    JUMP_GREATER,
    JUMP_SET,
    LOAD_BYTE,
    LOAD_BYTE_BEHIND,
    LOAD_HALF,
    LOAD_HALF_BEHIND,
    LOAD_LENGTH,
    LOAD_WORD_BEHIND,
    RETURN,
    SET_X,
    SHIFT_RIGHT,
)
from lab.netns.rtnetlink import VXLAN_PORT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lab.evidence.packet import Ends

_Instruction = tuple[int, int, int, int]

_TAKE: Final[_Instruction] = (RETURN, 0, 0, 0x40000)  # more bytes than any packet has
_LEAVE: Final[_Instruction] = (RETURN, 0, 0, 0)
#: Instructions for connections, of 4,096 that a program has at most (BPF_MAXINSNS).
MOST: Final = 3_500
#: Bytes from an outer IP header's end to the inner one: UDP's, VXLAN's and Ethernet's headers (RFC 7348, 5).
_TUNNEL: Final = 8 + 8 + 14
_PLAIN: Final = 0x45  # IPv4 without options
_FRAGMENT: Final = 0x1FFF  # where in the whole a fragment stands: the ports are in the first one


def leaving_out(most: int, connections: Collection[Ends] = (), room: int = MOST) -> list[_Instruction]:
    """Return the program that takes all packets but longer ones, and those of some TCP connections.

    Those within VXLAN are left out too. Of more connections than a program can name it takes the rest.

    :param most: bytes of a packet, from its IP header on.
    :param connections: source and destination of each direction.
    :param room: instructions for connections, at most :data:`MOST`; of one direction they are 7 by IPv4, 19 by IPv6.
    """
    of_4 = [_unless(ends, 12) for ends in connections if ":" not in ends[0].address]
    of_6 = [_unless(ends, 8) for ends in connections if ":" in ends[0].address]
    v4 = [
        *((LOAD_BYTE_BEHIND, 0, 0, 9), (JUMP_EQUAL, 1, 0, TCP), _TAKE),
        *((LOAD_BYTE_BEHIND, 0, 0, 0), (JUMP_EQUAL, 1, 0, _PLAIN), _TAKE),
        *((LOAD_HALF_BEHIND, 0, 0, 6), (JUMP_SET, 0, 1, _FRAGMENT), _TAKE),
        *_as_many_as_fit(of_4, room),
    ]
    v6 = [
        *((LOAD_BYTE_BEHIND, 0, 0, 6), (JUMP_EQUAL, 1, 0, TCP), _TAKE),
        *_as_many_as_fit(of_6, room - len(v4)),
    ]
    return [
        *((LOAD_LENGTH, 0, 0, 0), (JUMP_GREATER, 0, 1, most), _LEAVE),
        *_by_version(LOAD_BYTE, _find_inner(20, 9), _find_inner(40, 6)),
        *_by_version(LOAD_BYTE_BEHIND, v4, v6),
        _TAKE,
    ]


def _by_version(load: int, v4: list[_Instruction], v6: list[_Instruction]) -> list[_Instruction]:
    """Return one program of those for either version of IP; what is neither is taken."""
    return [
        *((load, 0, 0, 0), (SHIFT_RIGHT, 0, 0, 4)),
        *((JUMP_EQUAL, 0, 1, 4), (JUMP, 0, 0, 3)),
        *((JUMP_EQUAL, 1, 0, 6), _TAKE, (JUMP, 0, 0, len(v4) + 1)),
        *v4,
        (JUMP, 0, 0, len(v6)),
        *v6,
    ]


def _find_inner(header: int, protocol: int) -> list[_Instruction]:
    """Set X to where the innermost IP header is.

    :param header: bytes of the outer one.
    :param protocol: where in it the protocol stands.
    """
    return [
        *((SET_X, 0, 0, 0), (LOAD_BYTE, 0, 0, protocol), (JUMP_EQUAL, 0, 4, UDP)),
        *((LOAD_HALF, 0, 0, header + 2), (JUMP_EQUAL, 1, 0, VXLAN_PORT), _TAKE),
        (SET_X, 0, 0, header + _TUNNEL),
    ]


def _unless(ends: Ends, place: int) -> list[_Instruction]:
    """Leave a packet out that has these ends; else go on.

    :param place: of the source's address behind X; the destination's and the ports follow it.
    """
    source, destination = ends
    packed = ip_address(source.address).packed + ip_address(destination.address).packed
    packed += source.port.to_bytes(2) + destination.port.to_bytes(2)
    made: list[_Instruction] = []
    for at in range(0, len(packed), 4):
        further = (len(packed) - at) // 4 * 2 - 1  # over what is left of these
        made += [(LOAD_WORD_BEHIND, 0, 0, place + at), (JUMP_EQUAL, 0, further, int.from_bytes(packed[at : at + 4]))]
    return [*made, _LEAVE]


def _as_many_as_fit(parts: Sequence[list[_Instruction]], room: int) -> list[_Instruction]:
    return [one for part in parts[: max(0, room) // len(parts[0])] for one in part] if parts else []
