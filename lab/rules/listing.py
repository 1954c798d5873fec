# SPDX-License-Identifier: MIT
"""Makes of what ``iptables -S`` prints what iptables-save does: the same rules, with their table said.

A listing is of one table and does not name it; several may stand one after the other. Where the policies of the
built-in chains are there, they say which table it is (ip_tables' modules; without the chain INPUT, nat is of a kernel
before 2.6.34); where not, kube-proxy's chains do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from lab.errors import InputError
from lab.rules.tables import KUBE_PROXYS

_LINE: Final = re.compile(r"-(?P<kind>[PNA]) (?P<chain>\S+)(?P<rest>.*)")
_COUNTERS: Final = re.compile(r" -c \d+ \d+(?= |$)")  # with -v

# security has the chains of filter; kube-proxy has none there.
_BUILT_IN: Final = {
    frozenset({"INPUT", "FORWARD", "OUTPUT"}): "filter",
    frozenset({"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}): "nat",
    frozenset({"PREROUTING", "OUTPUT", "POSTROUTING"}): "nat",
    frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}): "mangle",
    frozenset({"PREROUTING", "OUTPUT"}): "raw",
}
_CURE: Final = "give what iptables-save prints: it names its tables"


def as_saved(lines: Iterable[tuple[int, str]], source: str) -> tuple[list[tuple[int, str]], list[str]]:
    """Return the lines as iptables-save would print them, with their numbers, and what has to be known of it.

    :raises InputError: it is not to be known which table a listing is of.
    """
    saved: list[tuple[int, str]] = []
    notes: list[str] = []
    for part in _parts(lines, source):
        table, by_policies = _table(part), any(line.startswith("-P ") for _, line in part)
        number = part[0][0]
        if table is None:
            raise InputError(
                "an iptables -S of which the table is not to be known", source=source, line=number, cure=_CURE
            )
        if any(line == f"*{table}" for _, line in saved):
            raise InputError(f"a second iptables -S of the table {table}", source=source, line=number, cure=_CURE)
        saved.append((number, f"*{table}"))
        saved += [(number, _saved(line)) for number, line in part]
        saved.append((part[-1][0], "COMMIT"))
        known = "its built-in chains" if by_policies else "kube-proxy's chains in it"
        notes.append(f"iptables -S does not say which table it is of: by {known}, this is {table}.")
    return saved, notes


def _parts(lines: Iterable[tuple[int, str]], source: str) -> list[list[tuple[int, str]]]:
    """Cut what was printed by several calls: each begins with its policies."""
    parts: list[list[tuple[int, str]]] = []
    before = ""
    for number, line in lines:
        parsed = _LINE.fullmatch(line)
        if parsed is None:
            raise InputError("no line of iptables -S", source=source, line=number, cure=_CURE)
        if not parts or (parsed["kind"] == "P" and before != "P"):
            parts.append([])
        before = parsed["kind"]
        parts[-1].append((number, line))
    return parts


def _table(part: list[tuple[int, str]]) -> str | None:
    words = [line.split()[:2] for _, line in part]
    if policies := frozenset(chain for kind, chain in words if kind == "-P"):
        return _BUILT_IN.get(policies)
    declared = [chain for kind, chain in words if kind == "-N"]
    found = {table for table, names in KUBE_PROXYS.items() if any(map(names.fullmatch, declared))}
    return found.pop() if len(found) == 1 else None


def _saved(line: str) -> str:
    kind, chain, *rest = line.split(None, 2)
    if kind == "-P":
        return f":{chain} {rest[0].split()[0] if rest else 'ACCEPT'} [0:0]"
    return f":{chain} - [0:0]" if kind == "-N" else _COUNTERS.sub("", line, count=1)
