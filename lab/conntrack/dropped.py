"""How many packets a node's rules dropped for being INVALID: the rules' own counters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lab.words import ProxyMode

if TYPE_CHECKING:
    from lab.fabric import RunningHost

_IPTABLES_RULE: Final = re.compile(r"^\[(\d+):\d+\] -A \S+ .*--ctstate INVALID\b.* -j DROP$", re.MULTILINE)
_LOADED: Final = re.compile(r"INVALID\b.*-j DROP|ct state invalid counter drop")
_NFTABLES_RULE: Final = re.compile(r"ct state invalid counter packets (\d+) bytes \d+ drop")


def dropped_as_invalid(node: RunningHost, version: int) -> int | None:
    """Return the packets that the node's INVALID drops counted, None where it has no such rule.

    :param version: 4 or 6, the IP version.
    """
    if not any(_LOADED.search(rules) for rules in node.rules):
        return None  # reading them would cost as much as loading them did
    if node.host.proxy_mode is ProxyMode.IPTABLES:
        found = _IPTABLES_RULE.findall(node.xtables.save(version, "filter"))
    else:
        found = _NFTABLES_RULE.findall(node.nft.run("list ruleset"))
    return sum(int(count) for count in found) if found else None
