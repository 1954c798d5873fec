# SPDX-License-Identifier: MIT
"""Whether the network namespace that one is in is a node whose connections can be reset: its own rules and sysctl say.

Nothing is written. nftables' own dump shows what iptables-nft has loaded as well, and of iptables-legacy only those
tables are saved that the kernel lists already, for asking for another one would make it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from lab.errors import LabError, raise_if_exhausted
from lab.kubeproxy.changes import DROPS_INVALID
from lab.kubeproxy.nftables import table_of
from lab.netns import Namespace, Nft, Xtables
from lab.vocabulary import BE_LIBERAL, Backend, Family, ProxyMode

LIBERAL: Final = BE_LIBERAL.replace("/", ".")


class Exposure(StrEnum):
    """Whether this machine is a node whose connections can be reset."""

    AFFECTED = "affected"
    PROTECTED = "protected"
    NO_NODE = "no-node"
    UNKNOWN = "unknown"


class _Place(NamedTuple):
    """A chain, by what a person finds it by."""

    table: str
    chain: str

    def __str__(self) -> str:
        return f"{self.table} {self.chain}"


@dataclass
class _Rules:
    """One family's rules, by chain.

    :param bases: the chains that a packet comes to before it is known where it goes, or when it is forwarded.
    :param jump: what of a rule names the chain that it leads to.
    """

    jump: re.Pattern[str]
    drop: Callable[[str], bool]
    chains: dict[_Place, list[str]] = field(default_factory=dict)
    bases: list[_Place] = field(default_factory=list)

    def drops(self) -> Iterator[tuple[_Place, str]]:
        """Return the rules that drop INVALID packets on their way through the node."""
        waiting, seen = [*self.bases], set[_Place]()
        while waiting:
            place = waiting.pop()
            if place in seen or place not in self.chains:
                continue
            seen.add(place)
            for rule in self.chains[place]:
                if self.drop(rule):
                    yield place, rule
                waiting += [_Place(place.table, target) for target in self.jump.findall(rule)]


@dataclass(frozen=True)
class _Found:
    """What there is of kube-proxy in one family.

    :param places: its chains or tables.
    :param own: its own rules that drop INVALID packets on their way through the node.
    :param others: those of others; whether every packet comes there is not for us to say.
    """

    family: Family
    mode: str
    places: tuple[str, ...]
    own: tuple[str, ...]
    others: tuple[str, ...]


def expose() -> tuple[Exposure, str]:
    """Return whether this namespace is a node whose connections can be reset, in a word and a sentence with evidence.

    Only root can ask that.

    :raises ExhaustedError: something ran out before it was known.
    """
    try:
        found = [one for family in Family for one in _found(family)]
    except (LabError, OSError) as error:
        raise_if_exhausted(error)
        return Exposure.UNKNOWN, f"Unknown: its rules cannot be read: {error}"
    if not found:
        if "kube-ipvs0:" in Path("/proc/thread-self/net/dev").read_text():
            return Exposure.UNKNOWN, "Unknown: its kube-proxy is in IPVS mode (it has the link kube-ipvs0)."
        return Exposure.NO_NODE, "No: there are no rules of kube-proxy, neither of iptables mode nor of nftables mode."
    return _concluded(found, be_liberal())


def be_liberal() -> str | None:
    """Return what the sysctl is here; None where there is none, or it cannot be read."""
    try:
        return Path("/proc/sys", BE_LIBERAL).read_text().strip()
    except OSError as error:
        raise_if_exhausted(error)
        return None


def _concluded(found: list[_Found], liberal: str | None) -> tuple[Exposure, str]:
    sysctl = f"{LIBERAL} is {liberal or 'unknown'}"
    families: dict[str, list[str]] = {}
    for one in found:
        families.setdefault(one.mode, []).append(one.family)
    node = "; ".join(f"{mode}, {' and '.join(its)}" for mode, its in families.items())
    bare = [one for one in found if not one.own]
    if liberal not in (None, "0"):
        rest = "" if not bare else " What is INVALID for its flags or its checksum still passes untranslated."
        words = f"No: it is a node ({node}), but {sysctl}: nothing is INVALID for being out of the window."
        return Exposure.PROTECTED, words + rest
    seen = ", ".join(place for one in bare for place in one.places)
    if any(not one.others for one in bare):
        hit = " and ".join(one.family for one in bare if not one.others)
        first = f"v1.{DROPS_INVALID.minor}"
        return Exposure.AFFECTED, (
            f"Yes, with {hit}: kube-proxy ({node}) drops no INVALID packets that are forwarded, by no rule in {seen}"
            f" nor anywhere else on their way, and {sysctl}: they pass untranslated, and who gets one resets the"
            f" connection. Take a kube-proxy from {first} on in iptables mode, or set {LIBERAL}=1."
        )
    if bare:
        others = "; ".join(dict.fromkeys(rule for one in bare for rule in one.others))
        return Exposure.UNKNOWN, (
            f"Perhaps: kube-proxy ({node}) drops no INVALID packets that are forwarded, by no rule in {seen}, and"
            f" {sysctl}; but others drop some, and whether all come there is for you to see: {others}."
        )
    # kubernetes #117924
    own = "; ".join(rule for one in found for rule in one.own)
    return Exposure.PROTECTED, (
        f"No: it is a node ({node}), but kube-proxy drops INVALID packets that are forwarded: {own}; {sysctl}."
        " Clients in its own network namespace and masqueraded ones are not protected by that."
    )


def _found(family: Family) -> Iterator[_Found]:
    """Yield what there is of kube-proxy: in iptables mode its chain in filter, in nftables mode its table."""
    with ExitStack() as stack:
        here = stack.enter_context(closing(Namespace.open("/proc/thread-self/ns/net")))
        nft = stack.enter_context(closing(Nft(here)))
        xtables = stack.enter_context(closing(Xtables(here, Backend.LEGACY)))
        by_nft, by_legacy = _read_nft(nft, family), _read_legacy(xtables, family)
    drops = [(place, f'{place}: "{rule}"') for rules in (by_nft, by_legacy) for place, rule in rules.drops()]
    kinds = (
        (f"{ProxyMode.NFTABLES} mode", by_nft, lambda place: place.table == table_of(family)),
        (f"{ProxyMode.IPTABLES} mode by iptables-{Backend.NFT}", by_nft, _is_forward_chain),
        (f"{ProxyMode.IPTABLES} mode by iptables-{Backend.LEGACY}", by_legacy, _is_forward_chain),
    )
    modes, owned = [], list[_Place]()
    for mode, rules, is_own in kinds:
        if its := [place for place in rules.chains if is_own(place)]:
            modes.append(mode)
            owned += its
    if modes:
        own = tuple(rule for place, rule in drops if place in owned)
        others = tuple(rule for place, rule in drops if place not in owned)
        places = tuple(dict.fromkeys(place.table if place.table == table_of(family) else str(place) for place in owned))
        yield _Found(family, " and ".join(modes), places, own, others)


def _is_forward_chain(place: _Place) -> bool:
    return place.chain == "KUBE-FORWARD" and place.table.endswith(" filter")


_STRINGS: Final = re.compile(r'"[^"]*"')
_NFT_JUMP: Final = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_HOOK: Final = re.compile(r"\btype \S+ hook (\w+)")


def _read_nft(nft: Nft, family: Family) -> _Rules:
    """Read what nft lists: of a family's own tables, and of those for both."""
    rules, prefix = _Rules(_NFT_JUMP, _nft_drops), family.nft
    for of_family, name in re.findall(r"^table (\S+) (\S+)$", nft.run("list tables"), re.MULTILINE):
        # iptables' table of translations filters nothing, and is the long one.
        if of_family in (prefix, "inet") and (of_family, name) != (prefix, "nat"):
            _read_table(f"{of_family} {name}", nft.run(f"list table {of_family} {name}"), rules)
    return rules


def _read_table(table: str, text: str, rules: _Rules) -> None:
    place = None
    for line in map(str.strip, text.splitlines()):
        if opened := re.fullmatch(r"chain (\S+) \{", line):
            place = _Place(table, opened[1])
            rules.chains[place] = []
        elif line == "}":
            place = None
        elif place is not None:
            if hook := _HOOK.match(line):
                rules.bases += [place] if hook[1] in ("prerouting", "forward") else []
            else:
                rules.chains[place].append(line)


def _nft_drops(rule: str) -> bool:
    """Report it for a rule, iptables-nft's too: where nft cannot translate it, it names the match alone."""
    bare = _STRINGS.sub("", rule.replace('"conntrack"', "conntrack"))
    states = re.search(r"\bct state (?!!)(.*\binvalid\b.*)\bdrop\b", bare)
    return bool(states or re.search(r"\bxt match conntrack\b.*\bdrop\b", bare))


_LEGACY_JUMP: Final = re.compile(r" -[jg] (\S+)")
_LEGACY_DROP: Final = re.compile(r"(?<!! )--(?:ct)?state \S*\bINVALID\b.* -j DROP\b")


def _read_legacy(xtables: Xtables, family: Family) -> _Rules:
    """Read what iptables-legacy-save prints of the tables that are there."""
    rules = _Rules(_LEGACY_JUMP, lambda rule: _LEGACY_DROP.search(rule) is not None)
    program = f"{family.nft}tables"
    listed = Path(f"/proc/thread-self/net/{family.nft}_tables_names")
    there = listed.read_text().split() if listed.exists() else []
    for name in filter(there.__contains__, ("raw", "mangle", "filter")):
        table = f"{program}-legacy {name}"
        rules.bases += [_Place(table, base) for base in ("PREROUTING", "FORWARD")]
        for line in xtables.save(family.version, name).splitlines():
            if declared := re.match(r":(\S+) ", line):
                rules.chains[_Place(table, declared[1])] = []
            elif rule := re.match(r"(?:\[\d+:\d+\] )?(-A (\S+).*)", line):
                rules.chains[_Place(table, rule[2])].append(rule[1])
    return rules
