# SPDX-License-Identifier: MIT
"""Named counters of a namespace that rules can refer to: nfacct (include/uapi/linux/netfilter/nfnetlink_acct.h)."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Final

from lab.errors import MissingError
from lab.netns import nfnetlink
from lab.netns.namespace import Namespace
from lab.netns.nfnetlink import Subsystem

if TYPE_CHECKING:
    from lab.kubeproxy import ProxyOptions

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


def provide(namespace: Namespace, options: ProxyOptions) -> ProxyOptions:
    """Make the counters that rules of iptables mode are to count by, as kube-proxy does before it loads them.

    :returns: the options; where this kernel has no nfacct, those by which rules do without.
    """
    try:
        for name in options.accounts:
            create(namespace, name)
    except MissingError:
        return dataclasses.replace(options, nfacct=False)
    return options
