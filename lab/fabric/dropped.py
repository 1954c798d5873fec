# SPDX-License-Identifier: MIT
"""What a node's rules dropped, by their own counters: for being INVALID, and for whatever else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lab.evidence.walk import Rule
from lab.fabric.loaded import chains_with_drops
from lab.netns import nft_state
from lab.netns.nft_state import Chain
from lab.vocabulary import Backend, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost

_SAVED: Final = re.compile(r"^\[(\d+):\d+\] (-A \S+ .*)$", re.MULTILINE)
_DROPPING: Final = re.compile(r" -j (?:DROP|REJECT)\b")
_POLICY: Final = re.compile(r"^:(\S+) DROP \[(\d+):\d+\]$", re.MULTILINE)
_TABLE: Final = re.compile(r"^table (\S+) (\S+)$", re.MULTILINE)
_TABLES_OF_IPTABLES: Final = ("filter", "nat", "mangle", "raw", "security")
_NFTABLES_DROP: Final = re.compile(r"counter packets (\d+) bytes \d+.* (?:drop|reject)\b")


def dropped_as_invalid(node: RunningHost, version: int) -> int | None:
    """Return the packets that the node's INVALID drops counted, None where it has no such rule.

    :param version: 4 or 6, the IP version.
    """
    # Reading rules costs as much as loading them did, so only those are read that were loaded.
    places = dict.fromkeys(place for text in node.rules for place in chains_with_drops(text))
    split = [(*table.rpartition(" ")[::2], name) for table, name in places]  # nft's tables have their family
    iptables = [(table, name) for family, table, name in split if not family]
    chains = [Chain(family, table, name) for family, table, name in split if family]
    counts: list[int] = []
    if node.host.backend is Backend.NFT:
        chains += [Chain("ip" if version == 4 else "ip6", table, name) for table, name in iptables]
    else:
        for table in dict.fromkeys(table for table, _name in iptables):
            saved = _SAVED.findall(node.xtables.save(version, table))
            counts += [int(count) for count, rule in saved if Rule(1, rule).drops_invalid]
    counts += nft_state.invalid_drops(node.namespace, chains)
    return sum(counts) if counts else None


def counted_drops(node: RunningHost, version: int) -> dict[str, int]:
    """Return what the rules counted that dropped or rejected something for another reason than INVALID, by rule.

    Rules of everybody: of the node's iptables, and of any nftables table. One that counts nothing cannot be told.

    :param version: 4 or 6, the IP version.
    """
    found: dict[str, int] = {}
    iptables = node.host.proxy_mode is ProxyMode.IPTABLES
    if iptables:
        saved = node.xtables.save(version)
        for count, rule in _SAVED.findall(saved):
            if _DROPPING.search(rule) and not Rule(1, rule).drops_invalid:
                found[rule] = found.get(rule, 0) + int(count)
        found |= {f"{chain}'s policy DROP": int(count) for chain, count in _POLICY.findall(saved)}
    # Those of iptables-nft were told above.
    tables = _tables_of_nft(node, but_iptables=iptables and node.host.backend is Backend.NFT)
    for name, listing in tables.items():
        for line in listing.splitlines():
            rule = _NFTABLES_DROP.search(line)
            if rule and not Rule(1, line).drops_invalid:
                told = f"table {name}: {_without_count(line)}"
                found[told] = found.get(told, 0) + int(rule[1])
    return {f"{node.name}: {rule}": count for rule, count in found.items() if count}


def _tables_of_nft(node: RunningHost, *, but_iptables: bool) -> dict[str, str]:
    """Return what nft lists of each table, by family and name.

    :param but_iptables: without those that are called as iptables-nft's are: nft cannot list their targets, and says so
        on standard error.
    """
    return {
        f"{family} {name}": node.nft.run(f"list table {family} {name}")
        for family, name in _TABLE.findall(node.nft.run("list tables"))
        if not (but_iptables and family in ("ip", "ip6") and name in _TABLES_OF_IPTABLES)
    }


def _without_count(line: str) -> str:
    return re.sub(r" packets \d+ bytes \d+", "", line.strip())
