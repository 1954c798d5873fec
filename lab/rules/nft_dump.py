# SPDX-License-Identifier: MIT
"""Reads what ``nft list`` prints: kube-proxy's table, and what of its iptables mode is beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from lab.errors import InputError
from lab.kubeproxy.nftables import table_of
from lab.rules import owners
from lab.rules.dump import Container, Dump, Line, is_kube_proxys, no_table, numbered
from lab.rules.pieces import CURE, CUT_OFF
from lab.vocabulary import Family, ProxyMode

_PROPERTY: Final = re.compile(r"type \S+ hook |policy |comment \"|devices? ")  # what a chain says of itself
_HANDLE: Final = re.compile(r" # handle \d+$")
_STRINGS: Final = re.compile(r'"[^"]*"')
_BETWEEN: Final = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')  # commas outside of strings


def read(text: str, source: str, family: Family) -> Dump:
    """Read a dump, as :func:`lab.rules.read_dump.read` does."""
    wanted = table_of(family)
    containers: dict[tuple[str, str], Container] = {}
    tables: set[str] = set()
    others, whose = Counter[str](), Counter[str]()
    foreign = ForeignChains(family)
    table, chain, container, depth, number = "", "", None, 0, 0
    for number, line in numbered(text):
        bare = _STRINGS.sub("", line)
        before, depth = depth, depth + bare.count("{") - bare.count("}")
        if depth < 0:
            raise InputError("a } too many", source=source, line=number, cure=CURE)
        said = _HANDLE.sub("", line)
        if before == 0:
            table = _table(said, source, number)
            tables.add(table)
        elif table != wanted:
            if before == 1:
                chain = said.split()[1] if said.startswith("chain ") else ""
                foreign.chain(table, chain)
            elif before == 2 and chain and said != "}":
                if said.startswith("type "):
                    foreign.hook(table, chain)
                elif not _PROPERTY.match(said):
                    others[table] += 1
                    whose[owners.of_nft(table, chain, said)] += 1
                    foreign.jumps(table, chain, re.findall(r"\b(?:jump|goto) (\S+)", bare))
        elif opened := re.fullmatch(r"(chain|set|map) (\S+) \{", said) if before == 1 else None:
            container = containers[table, opened[2]] = Container(opened[1], table, opened[2], number)
        elif before == 1 and said != "}":
            container = containers.setdefault((table, ""), Container("table", table, "", number))
            container.lines.append(Line(said, number))
        elif container is not None and (before == 3 or said.startswith("elements = {")):
            elements = _BETWEEN.split(said.removeprefix("elements = {").removesuffix("}"))
            container.elements.extend(Line(element.strip(), number) for element in elements if element.strip())
        elif container is not None and said != "}":
            container.lines.append(Line(said, number))
    if depth:
        raise InputError(f"ends within the table {table}", source=source, line=number, cure=CUT_OFF)
    if wanted not in tables:
        raise no_table(wanted, source, foreign.names)
    return Dump(ProxyMode.NFTABLES, frozenset(tables), containers, others, whose, notes=foreign.left_by_iptables_mode())


class ForeignChains:
    """The chains of other tables than kube-proxy's in a dump of nft's: some may be of kube-proxy's iptables mode."""

    def __init__(self, family: Family) -> None:
        self._tables = [f"{family.nft} {name}" for name in ("filter", "nat", "mangle")]
        self._chains: dict[tuple[str, str], list[str]] = {}
        self._hooked: set[tuple[str, str]] = set()

    def chain(self, table: str, name: str) -> None:
        """Note that there is a chain."""
        if name:
            self._chains.setdefault((table, name), [])

    def hook(self, table: str, name: str) -> None:
        """Note that packets come to a chain by themselves."""
        self._hooked.add((table, name))

    def jumps(self, table: str, name: str, targets: Iterable[str]) -> None:
        """Note where a chain's rules jump to."""
        self._chains.setdefault((table, name), []).extend(targets)

    @property
    def names(self) -> frozenset[str]:
        """The names of all chains."""
        return frozenset(name for _, name in self._chains)

    def left_by_iptables_mode(self) -> tuple[str, ...]:
        """Return, in sentences, which chains kube-proxy's iptables mode left: a restart does not delete all."""
        left = [place for place in self._chains if place[0] in self._tables and is_kube_proxys(place[1])]
        used, new = set(self._hooked), set(self._hooked)
        while new:
            new = {(table, target) for table, name in new for target in self._chains.get((table, name), ())} - used
            used |= new
        active = [place for place in left if place in used]
        unused = [place for place in left if place not in used]
        sentences = []
        if active:
            sentences.append(f"Left behind by iptables mode, and active: {_few(active)}: delete the jumps to it.")
        if unused:
            sentences.append(f"Left behind by iptables mode, unused: {_few(unused)}.")
        return tuple(sentences)


def _few(places: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(" ".join(place) for place in places[:8])
    return f"{shown} and {len(places) - 8} more" if len(places) > 8 else shown


def _table(line: str, source: str, number: int) -> str:
    opened = re.fullmatch(r"table (\S+ \S+) \{", line)
    if opened is None:
        raise InputError("no line of nft list", source=source, line=number, cure=CURE)
    return opened[1]
