# SPDX-License-Identifier: MIT
"""What a node's namespace has loaded: chain by chain the rules in order, with the file and line that they came from.

The kernel says which rules there are and in which order; their text and line are taken from what was loaded, where
that has as many, and else from what the kernel's programs list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Final, overload

from lab.evidence.traced import LEGACY, BaseChain, Chain
from lab.evidence.walk import Place, Rule
from lab.netns.nft_chain import NftChains
from lab.netns.xtables import Xtables, legacy_tables
from lab.rules import owners
from lab.rules.lines import Line, lines_of
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.topology.node_change import NodeChange

_OF_IPTABLES: Final = ("raw", "mangle", "nat", "filter", "security")
_SAVED: Final = re.compile(r"^(?:\[\d+:\d+\] )?-A (\S+) ?(.*)$", re.MULTILINE)
_DECLARED: Final = re.compile(r"^:(\S+) (\S+)", re.MULTILINE)
_OPENED: Final = re.compile(r"\tchain (\S+) \{")
_LISTED: Final = re.compile(r"\t\t(.*?) # handle (\d+)$")
_FEW: Final = 300  # chains, sets and maps of a table that is listed whole: that takes a millisecond
_ADDED: Final = "added here"  # who wrote what a fix or a case adds to a real node's rules
_COUNTED: Final = re.compile(r" packets \d+ bytes \d+")
#: Where the tables of iptables hang: include/uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities. Of nat, what
#: comes to the host or leaves it is translated at 100, and the rest at -100.
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}


class Loaded:
    """The rules of one running node in one family.

    :param chains: of its nftables.
    :param changes: what fixes have changed there.
    :param known: what another one has found out of the same rules, which are the same still.
    """

    def __init__(
        self,
        node: RunningHost,
        chains: NftChains,
        family: Family,
        changes: Sequence[NodeChange],
        known: Loaded | None = None,
    ) -> None:
        self._node, self._chains, self._family = node, chains, family
        # What programs have loaded there is known by no text: then each rule's is what the kernel's programs list.
        self._is_doubted = node.is_changed or any(change.script for change in changes)
        self._listings: dict[tuple[str, str], dict[str, dict[int, str]]] = {}
        self._policies: dict[tuple[str, str, str], str] = {}
        self._tables: dict[tuple[str, str], dict[str, list[str]]] = {}
        self._bases: dict[tuple[str, str, str], BaseChain] = {}
        self._found: dict[tuple[str, str, str], Chain] = {}
        self._drops: dict[tuple[str, str], list[Place]] = {}
        if known:
            self._take_over(known)
        given = node.host.given
        texts = [*(given.texts if given else ()), *(text for change in changes for text in change.texts)]
        self._sources = {one.text: one for one in texts}

    def _take_over(self, known: Loaded) -> None:
        """Take over what is known, but for tables of trials: those come and go."""
        self._policies, self._tables = known._policies, known._tables
        self._listings = {key: one for key, one in known._listings.items() if not _is_of_trial(key[1])}
        self._bases = {key: one for key, one in known._bases.items() if not _is_of_trial(key[1])}
        self._found = {key: one for key, one in known._found.items() if not _is_of_trial(key[1])}
        self._drops = {key: one for key, one in known._drops.items() if not _is_of_trial(key[1])}

    def chain(self, family: str, table: str, name: str) -> Chain:
        """Return a chain as it is loaded now; without rules where there is none."""
        key = (family, table, name)
        if key not in self._found:
            if family.startswith(LEGACY):
                self._found[key] = self._chain(key, (), self._saved(family, table).get(name, []))
            else:
                self._found[key] = self._nft(*key)
        return self._found[key]

    def drops(self, family: str, table: str) -> list[Place]:
        """Return the rules of a table that are for dropping INVALID packets."""
        key = (family, table)
        if key not in self._drops:
            names = self._names_with_drops(*key)
            by = family.removeprefix(LEGACY)
            places = (Place(by, table, name, rule) for name in names for rule in self.chain(*key, name).rules)
            self._drops[key] = [place for place in places if place.rule.drops_invalid]
        return self._drops[key]

    def base(self, family: str, table: str, name: str) -> BaseChain:
        """Return where a chain hangs; no hook of one that is no base chain."""
        if not family.startswith(LEGACY):
            key = (family, table, name)
            if key not in self._bases:
                self._bases[key] = BaseChain(*self._chains.base(*key))
            return self._bases[key]
        hook = name.lower()
        return BaseChain(hook, 100 if table == "nat" and hook in ("input", "postrouting") else _PRIORITIES[table])

    # --- by whom a table is ------------------------------------------------------------------------------------

    def is_iptables(self, family: str, table: str) -> bool:
        """Whether a table is iptables': nft cannot list all of its rules."""
        return family.startswith(LEGACY) or (self._is_own(family, table) and self._backend is Backend.NFT)

    @property
    def is_legacy(self) -> bool:
        """Whether iptables-legacy has rules there, of which nftables' trace tells nothing."""
        return bool(self.legacy_tables)

    @cached_property
    def legacy_tables(self) -> frozenset[str]:
        """The tables that iptables-legacy has there: each is asked of every packet at its hooks."""
        return legacy_tables(self._node.namespace, self._family.version)

    def _is_own(self, family: str, table: str) -> bool:
        """Whether a table is one of iptables', and by the program by which the lab's own rules are loaded."""
        own = f"{LEGACY if self._backend is Backend.LEGACY else ''}{self._family.nft}"
        return family == own and table in _OF_IPTABLES and self._has_iptables

    @property
    def _backend(self) -> Backend:
        return self._node.host.backend

    @cached_property
    def _has_iptables(self) -> bool:
        return self._node.host.proxy_mode is ProxyMode.IPTABLES or any(
            mode is ProxyMode.IPTABLES for mode, _text in self._texts
        )

    # --- what was loaded ---------------------------------------------------------------------------------------

    @cached_property
    def _texts(self) -> tuple[tuple[ProxyMode, str], ...]:
        """What was loaded, in its order."""
        return tuple((_mode(text), text) for text in self._node.rules)

    def _lines(self, family: str, table: str, name: str) -> Sequence[Line] | None:
        key = table if self._is_own(family, table) else f"{family} {table}"
        return lines_of(self._texts).get((key, name), ())

    def _rule(self, family: str, table: str, chain: str, position: int, text: str, line: Line | None) -> Rule:
        source = self._sources.get(self._texts[line.text][1]) if line else None
        if self.is_iptables(family, table):
            owner = owners.of_rule(chain, text)
            if not self._is_own(family, table):
                owner = f"{owner.replace(owners.UNKNOWN, '')} by iptables-legacy".lstrip()
        else:
            owner = owners.of_nft(f"{family} {table}", chain, text)
        number = source.line(line.number) if source and line else None
        is_added = line is not None and self._node.host.given is not None and source not in self._node.host.given.texts
        named = _ADDED if is_added else owner.replace(owners.UNKNOWN, "")
        return Rule(position, text, source.source if source else "", number, named)

    # --- nftables, iptables-nft among it -----------------------------------------------------------------------

    def _nft(self, family: str, table: str, name: str) -> Chain:
        lines = self._lines(family, table, name)
        is_readable = self.is_iptables(family, table) or self._are_files(lines or ())
        if not is_readable and self._is_small(family, table):
            listed = self._listings[family, table].get(name, {})
            return self._chain((family, table, name), tuple(listed), list(listed.values()))
        handles = self._chains.handles(family, table, name)
        texts: Sequence[str]
        if lines is not None and len(lines) == len(handles) and is_readable and not self._is_doubted:
            texts = [line.rule for line in lines]
        elif self.is_iptables(family, table):
            texts = self._saved(family, table).get(name, [])
        else:
            listed = _chains_in(self._node.nft.listed(f"chain {family} {table} {name}")).get(name, {})
            texts = [listed.get(handle, "") for handle in handles]
        return self._chain((family, table, name), handles, texts)

    def _chain(self, key: tuple[str, str, str], handles: tuple[int, ...], texts: Sequence[str]) -> Chain:
        lines = self._lines(*key)
        known = lines if lines is not None and len(lines) == len(texts) else [None] * len(texts)

        def rule(index: int) -> Rule:
            text, line = texts[index], known[index]
            return self._rule(*key, index + 1, text, line if line and self._is_sure(line, text) else None)

        return Chain(_Rules(len(texts), rule), handles)

    def _is_sure(self, line: Line, text: str) -> bool:
        """Whether a rule is the one of a line: of a chain that others may have changed, where it reads the same."""
        return not self._is_doubted or _COUNTED.sub("", line.rule) == text

    def _are_files(self, lines: Sequence[Line]) -> bool:
        """Whether rules are as people know them, in files of theirs: the lab's own in nftables mode are commands."""
        return bool(lines) and all(self._texts[line.text][1] in self._sources for line in lines)

    def _is_small(self, family: str, table: str) -> bool:
        """List a table whole where it has few chains, and return whether it is so."""
        key = (family, table)
        if key not in self._listings and self._chains.size(*key) <= _FEW:
            self._listings[key] = _chains_in(self._node.nft.listed(f"table {family} {table}"))
        return key in self._listings

    # --- iptables ----------------------------------------------------------------------------------------------

    def _saved(self, family: str, table: str) -> dict[str, list[str]]:
        """Return the rules of a table by chain, as iptables-save prints them."""
        key = (family, table)
        if key not in self._tables:
            backend = Backend.LEGACY if family.startswith(LEGACY) else Backend.NFT
            found: dict[str, list[str]] = {}
            with closing(Xtables(self._node.namespace, backend)) as xtables:
                saved = xtables.save(self._family.version, table)
            for chain, policy in _DECLARED.findall(saved):
                found[chain] = []
                self._policies[family, table, chain] = policy.lower().replace("-", "")
            for chain, rule in _SAVED.findall(saved):
                found[chain].append(rule)
            self._tables[key] = found
        return self._tables[key]

    def names(self, family: str, table: str) -> frozenset[str]:
        """Return the names of the chains of iptables-legacy's table."""
        return frozenset(self._saved(family, table))

    def policy(self, family: str, table: str, chain: str) -> str:
        """Return the policy of a chain of iptables-legacy; empty where it has none."""
        self._saved(family, table)
        return self._policies.get((family, table, chain), "")

    def _names_with_drops(self, family: str, table: str) -> list[str]:
        """Return the chains that have rules for dropping INVALID packets."""
        if self.is_iptables(family, table):
            if family.startswith(LEGACY) or self._is_foreign:
                saved = self._saved(family, table).items()
                return [name for name, texts in saved if any(Rule(1, text).drops_invalid for text in texts)]
            texts, key = self._node.rules, table
        else:
            is_known = self._node.host.given and not self._is_foreign
            texts = self._node.rules if is_known else [self._node.nft.run(f"list table {family} {table}")]
            key = f"{family} {table}"
        found = (place for text in texts for place in chains_with_drops(text))
        return list(dict.fromkeys(name for its_table, name in found if its_table == key))

    @property
    def _is_foreign(self) -> bool:
        """Whether programs may have loaded rules there that the lab did not."""
        return self._is_doubted or not self._texts


def loaded_on(node: RunningHost, chains: NftChains, family: Family, changes: Sequence[NodeChange]) -> Loaded:
    """Return what a node has loaded; of rules that were given, with what is known of them from before."""
    state = (len(node.rules), node.is_changed)
    is_known = node.host.given and not node.is_changed and node.loaded and node.loaded[0] == state
    known = node.loaded[1] if is_known and node.loaded else None
    found = Loaded(node, chains, family, changes, known)
    node.loaded = (state, found)
    return found


class _Rules(Sequence[Rule]):
    """The rules of a chain, each made once, when it is asked for: of very many few are."""

    def __init__(self, length: int, make: Callable[[int], Rule]) -> None:
        self._length, self._make = length, cache(make)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Rule: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Rule, ...]: ...
    def __getitem__(self, place: int | slice) -> Rule | tuple[Rule, ...]:
        if isinstance(place, slice):
            return tuple(map(self._make, range(*place.indices(self._length))))
        return self._make(range(self._length)[place])


def _is_of_trial(table: str) -> bool:
    return table.startswith("lab_")


def _chains_in(listing: str) -> dict[str, dict[int, str]]:
    """Return the rules in what ``nft -a list`` prints, by chain and handle, in their order."""
    found: dict[str, dict[int, str]] = {}
    rules: dict[int, str] = {}
    for line in listing.splitlines():
        if opened := _OPENED.match(line):
            rules = found[opened[1]] = {}
        elif rule := _LISTED.match(line):
            rules[int(rule[2])] = _COUNTED.sub("", rule[1])
    return found


@lru_cache(16)
def _mode(text: str) -> ProxyMode:
    return ProxyMode.IPTABLES if re.search(r"^\*[a-z]+$", text, re.MULTILINE) else ProxyMode.NFTABLES


@lru_cache(8)
def chains_with_drops(text: str) -> tuple[tuple[str, str], ...]:
    """Return the tables and chains of what was loaded that have a rule for dropping INVALID packets.

    Among them those of which a text alone does not tell what stands in them. nft's tables have their family.
    """
    if "invalid" not in text.lower():  # of most texts that is quickly said
        return ()
    lines = lines_of(((_mode(text), text),))
    return tuple(
        place
        for place, rules in lines.items()
        if rules is None or any(Rule(1, one.rule).drops_invalid for one in rules)
    )
