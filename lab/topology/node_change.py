# SPDX-License-Identifier: MIT
"""What a fix changes on a node, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lab.topology.given import GivenText


@dataclass(frozen=True)
class NodeChange:
    """What a fix changes on every node.

    :param sysctls: set before kube-proxy starts, keys with slashes below ``/proc/sys``.
    :param iptables: an iptables-restore input that is loaded after kube-proxy's rules. A rule with PODS is loaded once
        for each pair of networks that pods are in.
    :param nftables: an nft script that is loaded with kube-proxy's rules. TABLE stands for their table, NETWORK for ip
        or ip6, and PODS for the networks that pods are in, with commas.
    :param script: a shell script that runs on the node when kube-proxy has started.
    :param texts: rules of somebody's own, which are loaded before the script runs, in whatever mode the node is.
    """

    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    iptables: str = ""
    nftables: str = ""
    script: str = ""
    texts: tuple[GivenText, ...] = ()
