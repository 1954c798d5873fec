"""Named counters of a namespace that rules can refer to: nfacct (include/uapi/linux/netfilter/nfnetlink_acct.h)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

from lab.errors import MissingError
from lab.netns.namespace import Namespace

_NETLINK_NETFILTER: Final = 12
_NEW: Final = (7 << 8) | 0  # NFNL_SUBSYS_ACCT, NFNL_MSG_ACCT_NEW
_REQUEST_CREATE_ACK: Final = 0x1 | 0x400 | 0x4
_NAME: Final = 1  # NFACCT_NAME


def create(namespace: Namespace, name: str) -> None:
    """Make the counter ``name``; kube-proxy does so before it loads rules that count.

    :raises MissingError: the kernel has no nfacct.
    """
    value = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(value), _NAME) + value + bytes(-len(value) % 4)
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0) + attribute
    with namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as channel:
        channel.setblocking(True)
        channel.send(struct.pack("=IHHII", 16 + len(body), _NEW, _REQUEST_CREATE_ACK, 0, 0) + body)
        code = -struct.unpack_from("=i", channel.recv(4096), 16)[0]
    if code:
        raise MissingError(
            f"the kernel has no nfacct ({os.strerror(code)})",
            "modprobe nfnetlink_acct (NETFILTER_NETLINK_ACCT)",
        )


def create_all(namespace: Namespace, names: Iterable[str]) -> bool:
    """Make the counters that rules are to count by; False where this kernel has none, and the rules must do without."""
    try:
        for name in names:
            create(namespace, name)
    except MissingError:
        return False
    return True
