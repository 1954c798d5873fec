# SPDX-License-Identifier: MIT
"""Reads what ``iptables-save`` prints, or what :mod:`lab.rules.listing` makes of ``iptables -S``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from lab.errors import InputError
from lab.rules import listing
from lab.rules.dump import (
    CURE,
    CUT_OFF,
    OF_IPVS,
    Container,
    Dump,
    Line,
    is_kube_proxys,
    numbered,
    of_ipvs,
    target_of,
)
from lab.vocabulary import Family, ProxyMode

_OF_A_SET: Final = " --match-set KUBE-"
_BUILT_IN: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

_IPTABLES_LINE: Final = re.compile(
    r"\*(?P<table>[a-z]+)|:(?P<chain>\S+) (?P<policy>\S+)(?: \[\d+:\d+\])?|(?P<commit>COMMIT)"
    r"|(?:\[\d+:\d+\] )?-A (?P<source>\S+)(?P<rule>(?: .*)?)"
)
_TABLE_LINE: Final = re.compile(r"^[ \t]*\*([a-z]+)[ \t\r]*$", re.MULTILINE)
_RULES_ADDRESS: Final = re.compile(r"^.*-A KUBE-.* -[sd] ([0-9a-fA-F:.]+)", re.MULTILINE)
_ADDRESS: Final = re.compile(r"(?:^| )-[sd] ([0-9a-fA-F:.]+)")
_WITHOUT_VALUE: Final = re.compile(r"(?:^| )(-[sdpiomjg])(?= -| !|$)")
_STRINGS: Final = re.compile(r'"[^"]*"')


def read(text: str, source: str, family: Family) -> Dump:
    """Read a dump, as :func:`lab.rules.read_dump.read` does."""
    text, notes = _of_family(text, family, source)
    lines: Iterable[tuple[int, str]] = numbered(text)
    if listing.is_one(next(numbered(text))[1]):
        lines, notes = listing.as_saved(lines, source)
    reader = _Reader(source, family)
    number = 0
    for number, line in lines:
        reader.read(line, number)
    reader.end(number)
    return Dump(
        ProxyMode.IPTABLES,
        frozenset(reader.tables),
        reader.containers,
        reader.others,
        counts_by_name="-m nfacct " in text,
        entered=frozenset(reader.entered),
        notes=tuple(notes),
    )


class _Reader:
    """Reads line after line.

    Its attributes are those of :class:`~lab.rules.dump.Dump`.
    """

    def __init__(self, source: str, family: Family) -> None:
        self.tables: set[str] = set()
        self.containers: dict[tuple[str, str], Container] = {}
        self.others: Counter[str] = Counter()
        self.entered: set[tuple[str, str]] = set()
        self._source, self._family = source, family
        self._table = ""
        self._matches_sets = 0

    def read(self, line: str, number: int) -> None:
        """Read a line.

        :raises InputError: iptables-save prints none like it, or none there.
        """
        parsed = _IPTABLES_LINE.fullmatch(line)
        if parsed is None:
            raise self._error("no line of iptables-save", number, CURE)
        if parsed["table"]:
            if self._table:
                raise self._error(f"the table {self._table} has no end", number, CUT_OFF)
            self._table = parsed["table"]
            self.tables.add(self._table)
        elif not self._table:
            raise self._error("outside of a table", number, CUT_OFF)
        elif parsed["commit"]:
            self._table = ""
        elif chain := parsed["chain"]:
            if is_kube_proxys(chain):
                self.containers[self._table, chain] = Container("chain", self._table, chain, number)
        else:
            self._rule(parsed["source"], parsed["rule"].strip(), number)

    def _rule(self, chain: str, rule: str, number: int) -> None:
        place = (self._table, chain)
        if not is_kube_proxys(chain):
            target = target_of(rule)
            if chain not in _BUILT_IN or not is_kube_proxys(target):
                self.others[f"{self._table} {chain}"] += 1
                if is_kube_proxys(target):
                    self.entered.add((self._table, target))
                return
            self.containers.setdefault(place, Container("jumps", self._table, chain, number))
        elif place not in self.containers:
            raise self._error(f"a rule of the chain {chain}, which is not declared", number, CUT_OFF)
        if _OF_A_SET in rule:
            self._matches_sets = self._matches_sets or number
        _check_family(rule, self._family, self._source, number)
        if missing := _WITHOUT_VALUE.search(_STRINGS.sub('""', rule)):
            raise self._error(f"no rule that iptables-save prints: nothing behind {missing[1]}", number, CURE)
        self.containers[place].lines.append(Line(rule, number))

    def end(self, number: int) -> None:
        """Check that it was all there.

        :raises InputError: it was cut off, or nothing in it is of kube-proxy in this mode.
        """
        if self._table:
            raise self._error(f"ends within the table {self._table}", number, CUT_OFF)
        if not any(container.kind == "chain" for container in self.containers.values()):
            cure = "save with the backend that kube-proxy uses: iptables-nft-save or iptables-legacy-save"
            raise self._error("there is no chain of kube-proxy in it", None, cure)
        names = {name for _, name in self.containers}
        of_ipvs_mode = self._matches_sets or not OF_IPVS.isdisjoint(names)
        if of_ipvs_mode and not any(name.startswith("KUBE-SVC-") for name in names):
            raise of_ipvs(self._source, self._matches_sets or None)

    def _error(self, message: str, line: int | None, cure: str) -> InputError:
        return InputError(message, source=self._source, line=line, cure=cure)


def _of_family(text: str, family: Family, source: str) -> tuple[str, list[str]]:
    """Return what is of a family where several dumps stand in one file, each line where it was, and say so.

    :raises InputError: more than one is of this family, or none is.
    """
    starts, seen = [0], set[str]()
    for found in _TABLE_LINE.finditer(text):
        if found[1] in seen:
            starts.append(found.start())
            seen.clear()
        seen.add(found[1])
    if len(starts) == 1:
        return text, []
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    addresses = [_RULES_ADDRESS.search(piece) for piece in pieces]
    its = [number for number, one in enumerate(addresses) if one and (":" in one[1]) == (family is Family.IPV6)]
    its = its or [number for number, one in enumerate(addresses) if one is None]
    if len(its) != 1:
        line = text.count("\n", 0, starts[1]) + 1
        message = f"another dump begins here, and {len(its)} of the {len(pieces)} are of {family}"
        raise InputError(message, source=source, line=line, cure="give one of them")
    before = text.count("\n", 0, starts[its[0]])
    return "\n" * before + pieces[its[0]], [
        f"{len(pieces)} dumps stand in the file: compared is the one from line {before + 1} on."
    ]


def _check_family(rule: str, family: Family, source: str, number: int) -> None:
    address = _ADDRESS.search(rule)
    if address and (":" in address[1]) != (family is Family.IPV6):
        other = Family.IPV4 if family is Family.IPV6 else Family.IPV6
        message = f"a rule of {other}, but the rules are compared for {family}"
        raise InputError(message, source=source, line=number, cure=f"give --family {other}, or the other dump")
