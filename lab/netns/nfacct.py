"""Named counters of a namespace that rules can refer to: nfacct (include/uapi/linux/netfilter/nfnetlink_acct.h)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from lab.errors import MissingError
from lab.netns import nfnetlink
from lab.netns.namespace import Namespace
from lab.netns.nfnetlink import Subsystem

_NEW: Final = 0  # NFNL_MSG_ACCT_NEW
_NAME: Final = 1  # NFACCT_NAME


def create(namespace: Namespace, name: str) -> None:
    """Make the counter ``name``; kube-proxy does so before it loads rules that count.

    :raises MissingError: the kernel has no nfacct.
    """
    request = nfnetlink.message(
        Subsystem.ACCT,
        _NEW,
        nfnetlink.CREATE | nfnetlink.ACK,
        nfnetlink.attribute(_NAME, name.encode() + b"\0"),
    )
    with nfnetlink.open_socket(namespace) as channel:
        channel.setblocking(True)
        code = nfnetlink.ask(channel, request)
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
