# SPDX-License-Identifier: MIT
"""Makes of rules in iptables' words what ``iptables-restore`` takes, also where they are a part of a dump.

A dump that is whole stays as it is. What was picked out of one (by grep), cut off, or listed by ``iptables -S``, gets
the tables, chains and ends that it lacks, and it is said what is not known of the node then.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab.rules import listing
from lab.rules.dump import is_kube_proxys, numbered, target_of
from lab.rules.pieces import Form
from lab.rules.tables import BUILT_IN, Placing

if TYPE_CHECKING:
    from lab.rules.pieces import Piece

_RULE: Final = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+) ?(.*)")

# Targets that are no chains: ACCEPT and the like, and libxt_*, libipt_* and libip6t_* of iptables 1.8.9.
_TARGETS: Final = frozenset(
    [
        "ACCEPT",
        "DROP",
        "RETURN",
        "QUEUE",
        "AUDIT",
        "CHECKSUM",
        "CLASSIFY",
        "CLUSTERIP",
        "CONNMARK",
        "CONNSECMARK",
        "CT",
        "DNAT",
        "DNPT",
        "DSCP",
        "ECN",
        "HL",
        "HMARK",
        "IDLETIMER",
        "LED",
        "LOG",
        "MARK",
        "MASQUERADE",
        "NETMAP",
        "NFLOG",
        "NFQUEUE",
        "NOTRACK",
        "RATEEST",
        "REDIRECT",
        "REJECT",
        "SECMARK",
        "SET",
        "SNAT",
        "SNPT",
        "SYNPROXY",
        "TCPMSS",
        "TCPOPTSTRIP",
        "TEE",
        "TOS",
        "TPROXY",
        "TRACE",
        "TTL",
        "ULOG",
    ]
)


@dataclass(frozen=True)
class Framed:
    """Rules as ``iptables-restore`` takes them.

    :param numbers: the source's line of each line of the text; empty where they are the same.
    :param added: chains that are declared here alone, by table and name.
    :param missing: what is not there of what iptables-save prints.
    :param lacking: the tables that kube-proxy has rules in, and that are not in it.
    :param notes: what has to be known of how it was read, in sentences.
    """

    text: str = field(repr=False)
    numbers: Sequence[int] = field(default=(), repr=False)
    added: frozenset[tuple[str, str]] = frozenset()
    missing: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def partial(self) -> str:
        """What is missing, in a sentence; empty where nothing is."""
        return incomplete([*self.missing, *(f"there is no table {name}" for name in self.lacking)])

    def lines(self) -> Iterator[tuple[int, str]]:
        """Return the lines that say something, with their numbers in the source."""
        if not self.numbers:
            return numbered(self.text)
        return ((self.numbers[number - 1], line) for number, line in numbered(self.text))


#: How the sentence begins that says what of a dump is missing.
PART: Final = "Only a part of what "


def incomplete(missing: Sequence[str]) -> str:
    """Return in a sentence what is missing; empty where nothing is."""
    return f"{PART}iptables-save prints: {'; '.join(missing)}." if missing else ""


def framed(piece: Piece, source: str) -> Framed:
    """Return a piece of iptables' as a whole.

    :param source: what to call it in errors.
    :raises InputError: it is not to be known which table it is of.
    """
    lines: Iterable[tuple[int, str]] = numbered(piece.text)
    notes: list[str] = []
    if piece.form is Form.LISTED:
        lines, notes = listing.as_saved(lines, source)
    given = _Given()
    for number, line in lines:
        given.read(number, line)
    missing = (*piece.missing, *given.missing())
    if piece.form is Form.SAVED and given.whole:
        return Framed(piece.text, missing=missing, lacking=tuple(given.lacking()), notes=tuple(notes))
    made, numbers = given.made()
    added = frozenset(given.undeclared())
    return Framed("\n".join([*made, ""]), numbers, added, missing, tuple(given.lacking()), tuple(notes))


class _Table:
    """What there is of a table."""

    def __init__(self) -> None:
        self.declared: dict[str, tuple[int, str]] = {}
        self.used: dict[str, int] = {}  # by rules in them or by jumps to them
        self.rules: list[tuple[int, str]] = []


class _Given:
    """What there is of a dump."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._open: str = ""
        self._ended = True
        self._cut: list[str] = []
        self._picked: list[tuple[int, str]] = []
        self._placed = 0

    @property
    def whole(self) -> bool:
        """Whether nothing is missing that keeps it from being loaded."""
        self._place()
        return not (self._cut or self._placed or self._open or any(self.undeclared()))

    def read(self, number: int, line: str) -> None:
        """Read a line of iptables-save."""
        if line[0] == "*":
            if self._open:
                self._cut.append(self._open)
            self._open = line[1:]
            self._tables.setdefault(self._open, _Table())
        elif line == "COMMIT":
            self._open = ""
        elif not self._open:
            self._picked.append((number, line))
        elif line[0] == ":":
            self._tables[self._open].declared.setdefault(line[1:].partition(" ")[0], (number, line))
        else:
            self._rule(self._open, number, line)

    def _rule(self, name: str, number: int, line: str) -> None:
        table = self._tables.setdefault(name, _Table())
        parsed = _RULE.fullmatch(line)
        if parsed is None:
            return
        chain, rule = parsed.groups()
        table.used.setdefault(chain, number)
        target = target_of(rule)
        if target and target not in _TARGETS:
            table.used.setdefault(target, number)
        table.rules.append((number, line))

    def _place(self) -> None:
        """Give rules that stand outside of tables theirs."""
        placing = Placing(line for _, line in self._picked)
        for number, line in self._picked:
            if line[0] != ":":
                self._rule(placing.of_rule(line), number, line)
            elif name := placing.of_declaration(line):
                self._tables.setdefault(name, _Table()).declared.setdefault(line[1:].partition(" ")[0], (number, line))
        self._placed += len(self._picked)
        self._picked = []

    def undeclared(self) -> Iterator[tuple[str, str]]:
        """Return chains that are used and not declared, by table and name."""
        for name, table in self._tables.items():
            for chain in table.used:
                if chain not in table.declared and chain not in BUILT_IN:
                    yield name, chain

    def missing(self) -> Iterator[str]:
        """Report what is not there."""
        self._place()
        if self._placed:
            yield (
                f"{_counted(self._placed, 'line')} outside of any table, as grep picks them out: the table is told by"
                " the chain, and rules that were not picked are not known"
            )
        for name in dict.fromkeys([*self._cut, *([self._open] if self._open else [])]):
            yield f"the table {name} has no end"
        if undeclared := list(self.undeclared()):
            verb = "is" if len(undeclared) == 1 else "are"
            yield f"{_few([' '.join(one) for one in undeclared])} {verb} used and not declared"

    def lacking(self) -> Iterator[str]:
        """Return tables that a node has where kube-proxy has been, and that are not there."""
        ours = {name for name, table in self._tables.items() if any(map(is_kube_proxys, table.declared))}
        for name in ("filter", "nat"):
            if ours and name not in self._tables:
                yield name

    def made(self) -> tuple[list[str], Sequence[int]]:
        """Return lines for iptables-restore, and the source's line of each."""
        self._place()
        lines: list[str] = []
        numbers = array("L")
        undeclared = list(self.undeclared())
        for name, table in self._tables.items():
            new = [(table.used[chain], f":{chain} - [0:0]") for of, chain in undeclared if of == name]
            declared = sorted([*table.declared.values(), *new])
            every = [*declared, *table.rules]
            first, last = (every[0][0], every[-1][0]) if every else (1, 1)
            for number, line in ((first, f"*{name}"), *every, (last, "COMMIT")):
                lines.append(line)
                numbers.append(number)
        return lines, numbers


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"


def _few(names: Sequence[str]) -> str:
    shown = names[:5]
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown)} more"
    *others, last = shown
    return f"{', '.join(others)} and {last}" if others else last
