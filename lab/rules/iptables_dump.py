# SPDX-License-Identifier: MIT
"""Reads what ``iptables-save`` prints, as :mod:`lab.rules.frame` gives it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.rules import owners
from lab.rules.dump import OF_IPVS, Container, Dump, Line, is_kube_proxys, of_ipvs, target_of
from lab.rules.frame import incomplete
from lab.rules.pieces import CURE
from lab.rules.tables import BUILT_IN
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.rules.frame import Framed
    from lab.rules.pieces import Piece

_OF_A_SET: Final = " --match-set KUBE-"

_IPTABLES_LINE: Final = re.compile(
    r"\*(?P<table>[a-z]+)|:(?P<chain>\S+) (?P<policy>\S+)(?: \[\d+:\d+\])?|(?P<commit>COMMIT)"
    r"|(?:\[\d+:\d+\] )?-A (?P<source>\S+)(?P<rule>(?: .*)?)"
)
_KUBE_PROXYS: Final = re.compile(r"^:KUBE-(?!KUBELET|IPTABLES-HINT|FIREWALL|MARK-)", re.MULTILINE)
_ADDRESS: Final = re.compile(r"(?:^| )-[sd] ([0-9a-fA-F:.]+)")
_WITHOUT_VALUE: Final = re.compile(r"(?:^| )(-[sdpiomjg])(?= -| !|$)")
_STRINGS: Final = re.compile(r'"[^"]*"')


def read(framed: Framed, source: str, family: Family, notes: Sequence[str] = ()) -> Dump:
    """Read rules of iptables.

    :param source: what to call them in errors.
    :param notes: what has to be known of them besides, in sentences.
    :raises InputError: with the line, where a rule is none, or where nothing is of kube-proxy in this family.
    """
    reader = _Reader(source, family, framed.added)
    for number, line in framed.lines():
        reader.read(line, number)
    reader.check()
    return Dump(
        ProxyMode.IPTABLES,
        frozenset(reader.tables),
        reader.containers,
        reader.others,
        reader.owners,
        counts_by_name="-m nfacct " in framed.text,
        entered=frozenset(reader.entered),
        notes=(*notes, *framed.notes, *filter(None, [incomplete(framed.missing)])),
        partial=bool(framed.missing),
    )


class _Reader:
    """Reads line after line.

    Its attributes are those of :class:`~lab.rules.dump.Dump`.
    """

    def __init__(self, source: str, family: Family, added: Collection[tuple[str, str]]) -> None:
        self.tables: set[str] = set()
        self.containers: dict[tuple[str, str], Container] = {}
        self.others: Counter[str] = Counter()
        self.owners: Counter[str] = Counter()
        self.entered: set[tuple[str, str]] = set()
        self._source, self._family, self._added = source, family, added
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
            self._table = parsed["table"]
            self.tables.add(self._table)
        elif parsed["commit"]:
            return
        elif chain := parsed["chain"]:
            if is_kube_proxys(chain) and (self._table, chain) not in self._added:
                self.containers[self._table, chain] = Container("chain", self._table, chain, number)
        else:
            self._rule(parsed["source"], parsed["rule"].strip(), number)

    def _rule(self, chain: str, rule: str, number: int) -> None:
        place = (self._table, chain)
        if not is_kube_proxys(chain):
            target = target_of(rule)
            if chain not in BUILT_IN or not is_kube_proxys(target):
                self.others[f"{self._table} {chain}"] += 1
                self.owners[owners.of_rule(chain, rule)] += 1
                if is_kube_proxys(target):
                    self.entered.add((self._table, target))
                return
        if place not in self.containers:
            kind = "chain" if is_kube_proxys(chain) else "jumps"
            self.containers[place] = Container(kind, self._table, chain, number)
        if _OF_A_SET in rule:
            self._matches_sets = self._matches_sets or number
        _check_family(rule, self._family, self._source, number)
        if missing := _WITHOUT_VALUE.search(_STRINGS.sub('""', rule)):
            raise self._error(f"no rule that iptables-save prints: nothing behind {missing[1]}", number, CURE)
        self.containers[place].lines.append(Line(rule, number))

    def check(self) -> None:
        """Check that kube-proxy is in it.

        :raises InputError: nothing in it is of kube-proxy in this mode.
        """
        if not any(container.kind == "chain" for container in self.containers.values()):
            cure = "save with the backend that kube-proxy uses: iptables-nft-save or iptables-legacy-save"
            raise self._error("there is no chain of kube-proxy in it", None, cure)
        names = {name for _, name in self.containers}
        of_ipvs_mode = self._matches_sets or not OF_IPVS.isdisjoint(names)
        if of_ipvs_mode and not any(name.startswith("KUBE-SVC-") for name in names):
            raise of_ipvs(self._source, self._matches_sets or None)

    def _error(self, message: str, line: int | None, cure: str) -> InputError:
        return InputError(message, source=self._source, line=line, cure=cure)


def of_family(pieces: Sequence[Piece], family: Family, source: str) -> tuple[Piece, list[str]]:
    """Return what is of a family where several dumps stand in one file, and say so.

    :raises InputError: more than one is of this family, or none is.
    """
    if len(pieces) == 1:
        return pieces[0], []
    its = [one for one in pieces if one.family is family] or [one for one in pieces if one.family is None]
    if len(its) > 1:  # of both backends: kube-proxy uses one
        its = [one for one in its if _KUBE_PROXYS.search(one.text)] or its
    if len(its) != 1:
        message = f"another dump begins here, and {len(its)} of the {len(pieces)} are of {family}"
        raise InputError(message, source=source, line=pieces[1].line, cure="give one of them")
    return its[0], [f"{len(pieces)} dumps stand in the file: compared is the one from line {its[0].line} on."]


def _check_family(rule: str, family: Family, source: str, number: int) -> None:
    address = _ADDRESS.search(rule)
    if address and (":" in address[1]) != (family is Family.IPV6):
        other = Family.IPV4 if family is Family.IPV6 else Family.IPV6
        message = f"a rule of {other}, but the rules are compared for {family}"
        raise InputError(message, source=source, line=number, cure=f"give --family {other}, or the other dump")
