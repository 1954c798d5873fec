"""How many packets a node's rules dropped for being INVALID: the rules' own counters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lab.words import ProxyMode

if TYPE_CHECKING:
    from lab.host import RunningHost

_IPTABLES_RULE: Final = re.compile(r"^\[(\d+):\d+\] -A \S+ .*--ctstate INVALID\b.* -j DROP$", re.MULTILINE)
_IPTABLES_LOADED: Final = re.compile(r"--ctstate INVALID\b.*-j DROP")
_NFTABLES_LOADED: Final = "ct state invalid counter drop"
_NFTABLES_RULE: Final = re.compile(r"ct state invalid counter packets (\d+) bytes \d+ drop")


def dropped_as_invalid(node: RunningHost, version: int) -> int | None:
    """Return the packets that the node's INVALID drops counted, None where it has no such rule.

    :param version: 4 or 6, the IP version.
    """
    # Reading rules costs as much as loading them did, so only those are read that were loaded.
    if node.host.proxy_mode is ProxyMode.IPTABLES:
        tables = {table for rules in node.rules for table in _tables_with_drop(rules)}
        counts = [count for table in tables for count in _IPTABLES_RULE.findall(node.xtables.save(version, table))]
    elif any(_NFTABLES_LOADED in rules for rules in node.rules):
        counts = _NFTABLES_RULE.findall(node.nft.run("list ruleset"))
    else:
        counts = []
    return sum(map(int, counts)) if counts else None


def _tables_with_drop(rules: str) -> Iterator[str]:
    table = ""
    for line in rules.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif _IPTABLES_LOADED.search(line):
            yield table
