# SPDX-License-Identifier: MIT
"""What a node's rules dropped, by their own counters: for being INVALID, and for whatever else."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lab.netns import nft_state
from lab.netns.nft_state import Chain
from lab.vocabulary import Backend, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost

_IPTABLES_RULE: Final = re.compile(r"^\[(\d+):\d+\] -A \S+ .*--ctstate INVALID\b.* -j DROP$", re.MULTILINE)
_IPTABLES_LOADED: Final = re.compile(r"-[AI] (\S+) .*--ctstate INVALID\b.*-j DROP")
_NFTABLES_LOADED: Final = re.compile(r"ct state invalid counter (?:packets \d+ bytes \d+ )?drop")
_NFTABLES_RULE: Final = re.compile(r"ct state invalid counter packets (\d+) bytes \d+ drop")
_NFT_COMMAND: Final = re.compile(r"\s*(?:add|insert|create) rule (?:(ip|ip6|inet) )?(\S+) (\S+) ")
_NFT_TABLE: Final = re.compile(r"table (?:(ip|ip6|inet) )?(\S+) \{")
_NFT_CHAIN: Final = re.compile(r"chain (\S+) \{")
_OTHER_RULE: Final = re.compile(
    r"^\[(\d+):\d+\] (-A (?!.*--ctstate INVALID\b).* -j (?:DROP|REJECT)\b.*)$", re.MULTILINE
)
_POLICY: Final = re.compile(r"^:(\S+) DROP \[(\d+):\d+\]$", re.MULTILINE)
_TABLE: Final = re.compile(r"^table (\S+) (\S+)$", re.MULTILINE)
_TABLES_OF_IPTABLES: Final = ("filter", "nat", "mangle", "raw", "security")
_NFTABLES_OTHER: Final = re.compile(r"counter packets (\d+) bytes \d+.* (?:drop|reject)\b")


def dropped_as_invalid(node: RunningHost, version: int) -> int | None:
    """Return the packets that the node's INVALID drops counted, None where it has no such rule.

    :param version: 4 or 6, the IP version.
    """
    # Reading rules costs as much as loading them did, so only those are read that were loaded.
    places = dict.fromkeys(place for rules in node.rules for place in _places_with_drop(rules))
    chains = dict.fromkeys(chain for rules in node.rules for chain in _chains_with_drop(rules))
    counts: list[int] = []
    if node.host.backend is Backend.NFT:
        family = "ip" if version == 4 else "ip6"
        chains |= dict.fromkeys(Chain(family, table, chain) for table, chain in places)
    else:
        saved = (node.xtables.save(version, table) for table in {table for table, _chain in places})
        counts += [int(count) for text in saved for count in _IPTABLES_RULE.findall(text)]
    counts += nft_state.invalid_drops(node.namespace, [*chains])
    return sum(counts) if counts else None


def counted_drops(node: RunningHost, version: int) -> tuple[str, ...]:
    """Return the rules that dropped or rejected something for another reason than INVALID, with what they counted.

    Rules of everybody: of the node's iptables, and of any nftables table. One that counts nothing cannot be told.

    :param version: 4 or 6, the IP version.
    """
    found = []
    iptables = node.host.proxy_mode is ProxyMode.IPTABLES
    if iptables:
        saved = node.xtables.save(version)
        found = [f"{rule} counted {count}" for count, rule in _OTHER_RULE.findall(saved) if count != "0"]
        found += [f"{chain}'s policy DROP counted {count}" for chain, count in _POLICY.findall(saved) if count != "0"]
    # Those of iptables-nft were told above.
    tables = _tables_of_nft(node, but_iptables=iptables and node.host.backend is Backend.NFT)
    for name, listing in tables.items():
        for line in listing.splitlines():
            rule = _NFTABLES_OTHER.search(line)
            if rule and rule[1] != "0" and _NFTABLES_RULE.search(line) is None:
                found.append(f"table {name}: {_without_count(line)} counted {rule[1]}")
    return tuple(f"{node.name}: {one}" for one in found)


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


@lru_cache(maxsize=8)
def _places_with_drop(rules: str) -> tuple[tuple[str, str], ...]:
    """Return the tables and chains of an iptables-restore input that have such a rule."""
    drops = ((found.start(), found[1]) for found in _IPTABLES_LOADED.finditer(rules))
    return tuple((f"\n{rules[:place]}".rpartition("\n*")[2].partition("\n")[0], chain) for place, chain in drops)


@lru_cache(maxsize=8)
def _chains_with_drop(rules: str) -> tuple[Chain, ...]:
    """Return the chains of an nft script, or of what nft lists, that have such a rule."""
    chains: dict[Chain, None] = {}
    for found in _NFTABLES_LOADED.finditer(rules):
        line = rules[rules.rfind("\n", 0, found.start()) + 1 : found.start()]
        if told := _NFT_COMMAND.match(line):
            chains[Chain(told[1] or "ip", told[2], told[3])] = None
            continue
        table, chain = (
            head.match(rules, rules.rfind(word, 0, found.start()))
            for head, word in ((_NFT_TABLE, "table "), (_NFT_CHAIN, "chain "))
        )
        if table and chain:
            chains[Chain(table[1] or "ip", table[2], chain[1])] = None
    return tuple(chains)
