# SPDX-License-Identifier: MIT
"""Packets within packets: VXLAN, Geneve, GRE, and IP within IP, as the networks between nodes have them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from lab.capture.link import ip_behind
from lab.evidence.packet import UDP

_IP_IN_IP: Final = (4, 41)  # IPv4 and IPv6: RFC 2003, RFC 4213, RFC 2473
_GRE: Final = 47  # RFC 2784, RFC 2890
_VXLAN_PORTS: Final = (4789, 8472)  # IANA's, and Linux' own, which flannel and Cilium keep
_GENEVE_PORT: Final = 6081  # RFC 8926
PORTS: Final = (*_VXLAN_PORTS, _GENEVE_PORT)
_ETHERNET: Final = 0x6558  # a whole frame, by its EtherType
_IP_KINDS: Final = (0x0800, 0x86DD)


@dataclass(frozen=True)
class Inner:
    """A packet within another.

    :param at: where its IP header begins.
    :param tunnel: what it is within, and between whom; both ways the same.
    """

    at: int
    tunnel: str


def inner(data: bytes, at: int) -> Inner | None:
    """Return the packet that is within the one whose IP header begins at a byte; None where none is."""
    if len(data) < at + 20:
        return None
    if data[at] >> 4 == 4:
        if (data[at + 6] & 0x1F) or data[at + 7]:
            return None  # a later fragment
        protocol, behind, ends = data[at + 9], at + (data[at] & 15) * 4, data[at + 12 : at + 20]
    elif data[at] >> 4 == 6:
        protocol, behind, ends = data[at + 6], at + 40, data[at + 8 : at + 40]
    else:
        return None
    found = _behind(data, protocol, behind)
    if found is None or found[0] >= len(data) or len(ends) not in {8, 32}:
        return None
    half = len(ends) // 2
    first, second = sorted((ip_address(ends[:half]), ip_address(ends[half:])), key=int)
    return Inner(found[0], f"{found[1]} between {first} and {second}")


def _behind(data: bytes, protocol: int, at: int) -> tuple[int, str] | None:
    """Return where a tunnel's packet begins, and what tunnel it is, by what is behind the outer IP header."""
    if protocol in _IP_IN_IP:
        return at, "IP in IP"
    if len(data) < at + 16:
        return None
    if protocol == _GRE:
        return _of_kind(data, _number(data, at + 2), at + 4 + 4 * (data[at] & 0xB0).bit_count(), "GRE")
    if protocol != UDP:
        return None
    port, header = _number(data, at + 2), at + 8
    # RFC 7348, 5: of the flags I alone is set, and what is reserved is 0.
    if port in _VXLAN_PORTS and data[header] == 0x08 and not any((*data[header + 1 : header + 4], data[header + 7])):
        return _of_kind(data, _ETHERNET, header + 8, f"VXLAN {int.from_bytes(data[header + 4 : header + 7], 'big')}")
    if port == _GENEVE_PORT and data[header] >> 6 == 0:
        kind, options = _number(data, header + 2), (data[header] & 0x3F) * 4
        return _of_kind(
            data, kind, header + 8 + options, f"Geneve {int.from_bytes(data[header + 4 : header + 7], 'big')}"
        )
    return None


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _of_kind(data: bytes, kind: int, at: int, name: str) -> tuple[int, str] | None:
    if kind in _IP_KINDS:
        return at, name
    begins = ip_behind(data, at + 12) if kind == _ETHERNET else 0
    return (begins, name) if begins else None
