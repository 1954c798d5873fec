# SPDX-License-Identifier: MIT
"""Rules that a node has instead of those that a kube-proxy of the lab writes: a real node's, as they were saved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from lab.vocabulary import Backend, Family, ProxyMode

#: A sysctl of one interface; the first group is its name.
OF_INTERFACE: Final = re.compile(r"net/ipv[46]/conf/(?!all/|default/)([^/]+)/\w+")

#: One for all namespaces of a machine. Kernels before 5.12 let whoever is root in one of them write these
#: (671c54ea8c7f, net/netfilter/nf_conntrack_standalone.c), and so no lab may try.
OF_MACHINE: Final = re.compile(r"net/(?:netfilter/)?nf_conntrack_(?:max|buckets|expect_max)")


@dataclass(frozen=True)
class GivenText:
    """What one program loads in one piece.

    :param source: what to call it in messages.
    :param text: for ``iptables-restore``, ``nft -f``, or what ``nft -j list ruleset`` printed. A line that is left out
        is empty, so that the others keep their numbers.
    :param mode: which of them loads it: iptables mode for the first, nftables mode for the others.
    :param family: of iptables' rules; None for nft's, and for rules that either family may have.
    :param backend: of iptables' rules: by which program they were saved and are loaded; None for nft where nothing
        says it.
    :param numbers: the source's line of each line of the text, where they are not the same: of a part that was made
        loadable.
    """

    source: str
    text: str = field(repr=False)
    mode: ProxyMode
    family: Family | None = None
    backend: Backend | None = None
    numbers: tuple[int, ...] = field(default=(), repr=False)

    def line(self, number: int) -> int:
        """Return the source's line of a line of the text, both from 1."""
        return self.numbers[number - 1] if self.numbers else number

    @property
    def is_json(self) -> bool:
        """Whether it is nft's JSON."""
        return self.mode is ProxyMode.NFTABLES and self.text.lstrip().startswith("{")


@dataclass(frozen=True)
class GivenRules:
    """All rules of a node, and the sysctls that go with them.

    :param name: what the node is called in reports.
    :param sysctls: keys with slashes below ``/proc/sys``; set before anything is loaded, those of interfaces when these
        are there.
    """

    name: str
    texts: tuple[GivenText, ...]
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
