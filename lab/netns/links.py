# SPDX-License-Identifier: MIT
"""What a namespace's kernel tells of an interface and of the neighbours behind it, by rtnetlink.

Message formats: include/uapi/linux/if_link.h, neighbour.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from lab.netns.nfnetlink import attribute, attributes
from lab.netns.rtnetlink import RouteSocket, type_of_address

_NLMSG_ERROR: Final = 2
_RTM_GETLINK: Final = 18
_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000  # include/uapi/linux/if.h
NO_CARRIER: Final = "has no carrier"  # its other end is down
_NUD_UNANSWERED: Final = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as it is.

    :param fault: why it carries nothing, as ``is down``; empty where it does.
    :param mac: its hardware address.
    """

    fault: str
    mac: bytes = b""


def link(routes: RouteSocket, index: int) -> Link:
    """Return how the interface ``index`` is.

    :raises OSError: the kernel does not tell it.
    """
    no_statistics = attribute(29, struct.pack("=I", 1 << 3))  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
    kind, answer = routes.ask(_RTM_GETLINK, struct.pack("=BxHiII", 0, 0, index, 0, 0) + no_statistics)
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer)[0]
        if code == errno.ENODEV:
            return Link("is gone")
        raise OSError(code, f"cannot ask for interface {index}: {os.strerror(code)}")
    flags = struct.unpack_from("=BxHiII", answer)[3]
    mac = dict(attributes(answer[16:])).get(1, b"")  # IFLA_ADDRESS
    if not flags & _IFF_UP:
        return Link("is down", mac)
    return Link("" if flags & _IFF_LOWER_UP else NO_CARRIER, mac)


@dataclass(frozen=True, slots=True)
class NeighbourEntry:
    """What a host knows of a neighbour.

    :param unanswered: it was asked for and has not answered, or not yet.
    :param mac: where packets for it go to; empty where that is not known.
    """

    unanswered: bool
    mac: bytes


def neighbour_entry(routes: RouteSocket, index: int, address: type_of_address) -> NeighbourEntry | None:
    """Return what is known of a neighbour by interface ``index``; None where it was never asked for."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    destination = attribute(1, address.packed)  # NDA_DST
    kind, answer = routes.ask(_RTM_GETNEIGH, struct.pack("=BxHiHBB", family, 0, index, 0, 0, 0) + destination)
    if kind != _RTM_NEWNEIGH:  # of a single one from Linux 5.0 on
        return None
    unanswered = bool(struct.unpack_from("=BxHiH", answer)[3] & _NUD_UNANSWERED)
    return NeighbourEntry(unanswered, dict(attributes(answer[12:])).get(2, b""))  # NDA_LLADDR
