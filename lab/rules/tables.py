# SPDX-License-Identifier: MIT
"""Tells of iptables' rules that name no table which one they are of: by their chains, targets and jumps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from lab.rules.dump import target_of

#: The chains that are there by themselves.
BUILT_IN: Final = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})

#: Chains of kube-proxy that only one table has.
KUBE_PROXYS: Final = {
    "filter": re.compile(r"KUBE-(FORWARD|EXTERNAL-SERVICES|FIREWALL|PROXY-FIREWALL)"),
    "nat": re.compile(r"KUBE-(POSTROUTING|MARK-MASQ|MARK-DROP|(SVC|SVL|SEP|EXT|FW|XLB)-.*)"),
}

# Where the kernel takes a target (the ``table`` of its struct xt_target): the rest may stand anywhere.
_BY_TARGET: Final = {
    **dict.fromkeys(("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"), "nat"),
    "REJECT": "filter",
    **dict.fromkeys(("CT", "NOTRACK"), "raw"),
    **dict.fromkeys(("CHECKSUM", "DSCP", "ECN", "HL", "TCPOPTSTRIP", "TOS", "TPROXY", "TTL"), "mangle"),
}
_SEVERAL: Final = BUILT_IN | {"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY", "KUBE-KUBELET-CANARY"}
_LIKELY: Final = {"PREROUTING": "nat", "POSTROUTING": "nat"}
_RULE: Final = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+) ?(.*)")


class Placing:
    """Knows the tables of chains by all rules that there are.

    :param lines: of iptables-save, without those of tables.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._known: dict[str, str] = {}
        links: list[tuple[str, str]] = []
        for line in lines:
            if parsed := _RULE.fullmatch(line):
                chain, target = parsed[1], target_of(parsed[2])
                links.append((chain, target))
                for name in (chain, target):
                    if name not in _SEVERAL and (table := _by_name(name)):
                        self._known[name] = table
                if chain not in _SEVERAL and (table := _BY_TARGET.get(target)):
                    self._known.setdefault(chain, table)
        links = [one for one in links if not _SEVERAL.intersection(one)]
        before = -1
        while before < len(self._known):
            before = len(self._known)
            for one, other in links:
                for chain, known in ((one, other), (other, one)):
                    if known in self._known and chain not in _BY_TARGET:
                        self._known.setdefault(chain, self._known[known])

    def of_rule(self, line: str) -> str:
        """Return the table of a rule; filter where nothing says another."""
        parsed = _RULE.fullmatch(line)
        if parsed is None:
            return "filter"
        chain, rule = parsed.groups()
        target = target_of(rule)
        if chain in self._known:
            return self._known[chain]
        if "--ctstate NEW" in rule and target.startswith("KUBE-"):
            return "filter"  # in nat kube-proxy's jumps have no condition
        if table := _BY_TARGET.get(target) or self._known.get(target):
            return table
        if target in ("KUBE-SERVICES", "KUBE-NODEPORTS") and chain not in ("INPUT", "FORWARD"):
            return "nat"
        return _LIKELY.get(chain, "filter")

    def of_declaration(self, line: str) -> str:
        """Return the table of a chain's declaration; empty where several tables may have it."""
        name, policy = line[1:].split(" ")[:2]
        if policy == "DROP":
            return "filter"
        return "" if name in _SEVERAL else self._known.get(name, _by_name(name) or "filter")


def _by_name(chain: str) -> str | None:
    return next((table for table, names in KUBE_PROXYS.items() if names.fullmatch(chain)), None)
