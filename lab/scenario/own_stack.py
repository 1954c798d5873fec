# SPDX-License-Identifier: MIT
"""What a host's own stack gives to a packet that it sends to an address, asked of its kernel at that moment."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from lab.fabric.host import RunningHost
from lab.traffic.tcp import address_family

_ANY_PORT: Final = 9  # discard (RFC 863); no datagram goes there


@dataclass(frozen=True)
class Chosen:
    """What the stack has chosen.

    :param source: its address; that of nobody, ``0.0.0.0`` or ``::``, where the stack has no way there.
    :param hop_limit: the route's where it has one, else the host's (ip_select_ttl, include/net/ip.h).
    :param refusal: why it sends nothing there: an errno and its words; empty where it does.
    """

    source: str
    hop_limit: int
    refusal: str = ""


def chosen_by(running: RunningHost, destination: str) -> Chosen:
    """Return what a host's stack chooses, by a datagram socket that is connected there and sends nothing."""
    family, wanted = address_family(destination), ip_address(destination)
    with running.namespace.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((destination, _ANY_PORT))
        except OSError as error:
            return Chosen("::" if wanted.version == 6 else "0.0.0.0", 0, words_of(error))  # noqa: S104 - no bind
        if wanted.version == 6:  # of a socket that is connected it is the route's
            hop_limit = asking.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
        else:
            hop_limit = running.routes.routed(wanted).hop_limit or asking.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        return Chosen(asking.getsockname()[0], hop_limit)


def words_of(error: OSError) -> str:
    """Return the name of an error's number, and its words."""
    number = error.errno or 0
    return f"{errno.errorcode.get(number, '')} ({os.strerror(number)})".lstrip()
