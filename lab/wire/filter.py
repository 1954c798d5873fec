# SPDX-License-Identifier: MIT
"""Filters of packets that the kernel runs before it copies anything: classic BPF, attached to one socket.

Instructions: include/uapi/linux/filter.h and bpf_common.h; what is loaded from SKF_AD_OFF on is about the packet, and
what from 0 on is in it: for a socket of SOCK_DGRAM from the IP header on (Documentation/networking/filter.rst).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from lab.evidence.packet import FIN, RST, SYN, TCP
from lab.netns.filters import JUMP, LOAD_BYTE_BEHIND, LOAD_HALF_BEHIND, SET_X, SO_ATTACH_FILTER
from lab.netns.rtnetlink import LOOPBACK_INDEX
from lab.wire.sockets import PACKET_OUTGOING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Bytes of a packet that are copied: room for IP and TCP headers with all their options.
SNAP: Final = 128

_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter
_WORD, _HALF, _BYTE = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS
_HEADER_LENGTH: Final = 0xB1  # BPF_LDX | BPF_MSH: X = 4 * (P[k] & 15)
_AND, _SHIFT, _EQUAL, _ANY_BIT, _RETURN = 0x54, 0x74, 0x15, 0x45, 0x06
_KIND, _INTERFACE = 0xFFFFF000 + 4, 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_AD_IFINDEX

#: Networks and ports of each set: they are compared one by one, and so many are some 30 ns.
_MOST: Final = 24

_Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Candidates:
    """Whose packets may have missed their translation: those of endpoints, to clients that have asked a VIP.

    :param endpoints: addresses; ``ports``: of theirs; ``clients``: addresses.
    """

    endpoints: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    clients: frozenset[str] = frozenset()


def candidates(chosen: Candidates) -> bytes:
    """Return the program that takes of TCP what begins and ends connections, and what may have missed its translation.

    That is what goes out from an endpoint to a client. Where the sets are large, it takes more than what is in them:
    addresses are compared by as many bits as leave :data:`_MOST` of them.
    """
    return _program(chosen, SNAP, 0, 0)


def rest(chosen: Candidates, *, tcp_only: bool) -> bytes:
    """Return the program that takes what :func:`candidates` leaves of IP.

    :param tcp_only: of TCP alone.
    """
    return _program(chosen, 0, SNAP, 0 if tcp_only else SNAP)


def everything() -> bytes:
    """Return the program that takes every packet, but for the loopback's."""
    return _assembled([*_without_loopback(), (_RETURN, 0, 0, SNAP)])


def nothing() -> bytes:
    """Return the program that takes no packet."""
    return _assembled([(_RETURN, 0, 0, 0)])


def _program(chosen: Candidates, yes: int, no: int, other: int) -> bytes:
    """Return a program, but for the loopback.

    :param yes: bytes that it takes of a candidate, ``no``: of other TCP, ``other``: of what is none.
    """
    ports = sorted(chosen.ports)
    of_ports = [(LOAD_HALF_BEHIND, 0, 0, 0), *_one_of(ports, no)] if 0 < len(ports) <= _MOST else []
    v4, v6 = (
        [
            *(_ends(_parts(chosen.endpoints, version), source, no) if chosen.endpoints else [(_RETURN, 0, 0, no)]),
            *_ends(_parts(chosen.clients, version), destination, no),
            (_RETURN, 0, 0, yes),
        ]
        for version, source, destination in ((4, 12, 16), (6, 8, 24))
    )
    head = [
        (LOAD_BYTE_BEHIND, 0, 0, 13),  # TCP's flags
        (_ANY_BIT, 0, 1, FIN | SYN | RST),
        (_RETURN, 0, 0, yes),
        (_BYTE, 0, 0, _KIND),
        (_EQUAL, 1, 0, PACKET_OUTGOING),
        (_RETURN, 0, 0, no),
        *of_ports,
    ]
    return _assembled(_by_version([*_is_tcp_of_4(other), *head, *v4], [*_is_tcp_of_6(other), *head, *v6]))


def attach(listener: socket.socket, program: bytes) -> None:
    """Have a socket get no more than what a program takes; another one that it had is replaced."""
    text = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(text))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)


def _assembled(instructions: Sequence[_Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*one) for one in instructions)


def _without_loopback() -> list[_Instruction]:
    return [(_WORD, 0, 0, _INTERFACE), (_EQUAL, 0, 1, LOOPBACK_INDEX), (_RETURN, 0, 0, 0)]


def _by_version(v4: list[_Instruction], v6: list[_Instruction]) -> list[_Instruction]:
    """Return one program of those for either version of IP."""
    return [
        *_without_loopback(),
        (_BYTE, 0, 0, 0),
        (_SHIFT, 0, 0, 4),
        (_EQUAL, 0, 1, 4),
        (JUMP, 0, 0, 3),
        (_EQUAL, 1, 0, 6),
        (_RETURN, 0, 0, 0),
        (JUMP, 0, 0, len(v4)),
        *v4,
        *v6,
    ]


def _is_tcp_of_4(other: int) -> list[_Instruction]:
    """Go on with the first fragments of TCP alone, and with X at its header."""
    return [
        (_BYTE, 0, 0, 9),
        (_EQUAL, 1, 0, TCP),
        (_RETURN, 0, 0, other),
        (_HALF, 0, 0, 6),
        (_ANY_BIT, 0, 1, 0x1FFF),
        (_RETURN, 0, 0, 0),
        (_HEADER_LENGTH, 0, 0, 0),
    ]


def _is_tcp_of_6(other: int) -> list[_Instruction]:
    """Go on with TCP that has no extension headers, and with X at its header."""
    return [(_BYTE, 0, 0, 6), (_EQUAL, 1, 0, TCP), (_RETURN, 0, 0, other), (SET_X, 0, 0, 40)]


def _one_of(values: Sequence[int], no: int) -> list[_Instruction]:
    """Go on where the number that was loaded is one of these; else take so many bytes."""
    count = len(values)
    return [*((_EQUAL, count - at, 0, value) for at, value in enumerate(values)), (_RETURN, 0, 0, no)]


def _parts(addresses: Iterable[str], version: int) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return masks of 32 bits, and the words of those networks that have all the addresses of a version."""
    width = 32 if version == 4 else 64  # of IPv6, hosts within one /64 are not told apart
    found = [one for one in map(ip_address, addresses) if one.version == version]
    numbers = {int(one) >> (one.max_prefixlen - width) for one in found}
    dropped = 0
    while len(numbers) > _MOST:
        numbers, dropped = {number >> 1 for number in numbers}, dropped + 1
    mask = ((1 << width) - 1) >> dropped << dropped
    return _words(mask, width), [_words(number << dropped, width) for number in sorted(numbers)]


def _words(number: int, width: int) -> tuple[int, ...]:
    return tuple(number >> shift & 0xFFFFFFFF for shift in range(width - 32, -1, -32))


def _ends(parts: tuple[tuple[int, ...], list[tuple[int, ...]]], place: int, no: int) -> list[_Instruction]:
    """Go on where the address at a place in the header is in one of the networks; else take so many bytes."""
    masks, networks = parts
    if len(masks) == 1:
        return [(_WORD, 0, 0, place), (_AND, 0, 0, masks[0]), *_one_of([words[0] for words in networks], no)]
    made: list[_Instruction] = []
    for at, (first, second) in enumerate(networks):
        further = 6 * (len(networks) - at) - 5
        made += [
            (_WORD, 0, 0, place),
            (_AND, 0, 0, masks[0]),
            (_EQUAL, 0, 3, first),
            (_WORD, 0, 0, place + 4),
            (_AND, 0, 0, masks[1]),
            (_EQUAL, further, 0, second),
        ]
    return [*made, (_RETURN, 0, 0, no)]
