# SPDX-License-Identifier: MIT
"""Which line of the texts that were loaded is a chain's rule of a position.

The texts are played as the programs that load them do: ``iptables-restore --noflush`` (iptables-restore(8)) and
``nft -f`` (nft(8)). A chain with a rule that is deleted or put at a place that is not told by number is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from lab.vocabulary import ProxyMode

_IPTABLES_RULE: Final = re.compile(r"(?:\[\d+:\d+\] +)?(-[A-Z])(?: +(\S+))?(?: +(.*))?")
_NUMBER: Final = re.compile(r"(\d+)(?: +|$)")
_FAMILY: Final = "(?:(ip|ip6|inet|arp|bridge|netdev) )?"  # ip where none is said: nft(8)
_COMMAND: Final = re.compile(
    rf"(add|insert|create|replace|delete|flush) (rule|chain|table) {_FAMILY}(\S+)(?: (\S+))?(?: (.*))?$"
)
_OPENED: Final = re.compile(rf"(?:add |create )?table {_FAMILY}(\S+) \{{")
_PROPERTY: Final = re.compile(r"type \S+ hook |policy |comment \"|devices? |flags ")
_PLACED: Final = re.compile(r"(?:position|handle|index) \d+")
_HANDLE: Final = re.compile(r" # handle \d+$")
_STRINGS: Final = re.compile(r'"[^"]*"')


class Line(NamedTuple):
    """A rule in the texts.

    :param text: which of them, from 0.
    :param number: of its line there, from 1.
    :param rule: without the chain, and without counters and handles.
    """

    text: int
    number: int
    rule: str


#: By table and chain; None of a chain whose rules cannot be known from the texts. nft's tables have their family.
Lines: TypeAlias = Mapping[tuple[str, str], Sequence[Line] | None]


@lru_cache(4)
def lines_of(texts: tuple[tuple[ProxyMode, str], ...]) -> Lines:
    """Return the rules of each chain in their order, when the texts were loaded one after the other.

    :param texts: with the mode whose program loads them; of iptables' those of one family.
    """
    reader = _Reader()
    for index, (mode, text) in enumerate(texts):
        read = reader.iptables if mode is ProxyMode.IPTABLES else reader.nft
        read(index, text.split("\n"))
    return reader.chains


class _Reader:
    def __init__(self) -> None:
        self.chains: dict[tuple[str, str], list[Line] | None] = {}

    def iptables(self, index: int, lines: Sequence[str]) -> None:
        """Read what iptables-restore reads."""
        table = ""
        for number, line in enumerate(lines, 1):
            if line.startswith("*"):
                table = line[1:].strip()
            elif line.startswith(":"):  # of a chain that is nobody's own, it empties nothing
                name, policy, *_rest = [*line[1:].split(), ""]
                if policy == "-":
                    self.chains[table, name] = []
            elif said := _IPTABLES_RULE.match(line):
                self._iptables_rule((table, said[2] or ""), said[1], said[3] or "", (index, number))

    def _iptables_rule(self, key: tuple[str, str], verb: str, rule: str, at: tuple[int, int]) -> None:
        if verb == "-F":
            for one in [key] if key[1] else [one for one in self.chains if one[0] == key[0]]:
                self.chains[one] = []
        elif verb in ("-D", "-R", "-E"):
            self.chains[key] = None
        elif verb in ("-A", "-I"):
            place = _NUMBER.match(rule) if verb == "-I" else None
            before = int(place[1]) - 1 if place else 0
            self._put(key, Line(*at, rule[place.end() :] if place else rule), None if verb == "-A" else before)

    def nft(self, index: int, lines: Sequence[str]) -> None:
        """Read what nft reads: tables as nft lists them, and commands."""
        table, chain, depth = "", "", 0
        for number, whole in enumerate(lines, 1):
            line = _HANDLE.sub("", whole.strip())
            bare = _STRINGS.sub("", line)
            before, depth = depth, depth + bare.count("{") - bare.count("}")
            if before == 0 and (opened := _OPENED.match(line)):
                table, chain = f"{opened[1] or 'ip'} {opened[2]}", ""
            elif before == 0:
                self._command(line, (index, number))
            elif before == 1:
                opened = re.match(r"chain (\S+) \{", line)
                chain = opened[1] if opened else ""
                if chain:
                    self.chains.setdefault((table, chain), [])
            elif before == 2 and chain and line not in ("", "}") and line[0] != "#" and not _PROPERTY.match(line):
                self._put((table, chain), Line(index, number, line), None)

    def _command(self, line: str, at: tuple[int, int]) -> None:
        said = _COMMAND.match(line)
        if said is None:
            return
        verb, kind, table, chain, rule = said[1], said[2], f"{said[3] or 'ip'} {said[4]}", said[5] or "", said[6] or ""
        if verb in ("flush", "delete") and kind != "rule":
            for key in [(table, chain)] if kind == "chain" else [one for one in self.chains if one[0] == table]:
                self.chains[key] = []
        elif kind == "rule" and (verb in ("replace", "delete") or _PLACED.match(rule)):
            self.chains[table, chain] = None
        elif kind == "rule":
            self._put((table, chain), Line(*at, rule), 0 if verb == "insert" else None)

    def _put(self, key: tuple[str, str], line: Line, before: int | None) -> None:
        rules = self.chains.setdefault(key, [])
        if rules is not None:
            rules.insert(len(rules) if before is None else before, line)
