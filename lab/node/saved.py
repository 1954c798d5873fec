# SPDX-License-Identifier: MIT
"""Rules that were found in what is given of a node, as they can be loaded, each of them once."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from lab.errors import InputError
from lab.node.bundle import Saved
from lab.rules.frame import PART, framed, incomplete
from lab.rules.pieces import CURE, Form, Piece
from lab.vocabulary import Backend, Family, ProxyMode

_TABLE: Final = re.compile(r"^\*(\w+)$", re.MULTILINE)
_OPENED: Final = re.compile(r"table (\S+ \S+) \{")
_CONTAINER: Final = re.compile(r"(?:chain|set|map|flowtable|counter|quota|limit|ct \w+) (\S+) \{")
_STRINGS: Final = re.compile(r'"[^"]*"')
_TARGET: Final = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_SET: Final = re.compile(r"@(?!(?:ll|nh|th|ih),)([^\s,}]+)")  # these are raw payloads
_IPV6: Final = re.compile(r"ip6|v6")
_PARTS: Final = incomplete("?").partition("?")


def saved(piece: Piece, source: str, file: str) -> Saved:
    """Return a piece as it can be loaded.

    :param source: what to call it in messages.
    :param file: its own name, for what its text does not say.
    :raises InputError: it cannot be loaded whatever is done about it.
    """
    if piece.form is Form.JSON:
        return Saved(source, piece.text, ProxyMode.NFTABLES)
    if piece.form is Form.NFT:
        return _of_nft(piece, source)
    whole = framed(piece, source)
    family = piece.family or (Family.IPV6 if _IPV6.search(file) else Family.IPV4)
    backend = piece.backend or next((one for one in Backend if f"-{one}" in file), None)
    numbers = tuple(whole.numbers)
    return Saved(source, whole.text, ProxyMode.IPTABLES, family, backend, numbers, whole.partial)


def once(found: Sequence[Saved]) -> tuple[Saved, ...]:
    """Return what holds every rule once.

    What nft prints of the tables of iptables-nft is left out where iptables-save printed them, and its JSON where its
    text is there. What one dump lacks and another has is not missing.

    :raises InputError: two dumps have the same table, and are not the same.
    """
    of_iptables: list[Saved] = []
    for one in found:
        if one.mode is ProxyMode.IPTABLES and not any(_same(one, other) for other in of_iptables):
            of_iptables.append(one)
    texts = [one for one in found if one.mode is ProxyMode.NFTABLES and not one.is_json]
    tables = {
        f"{one.family.nft} {name}"
        for one in of_iptables
        if one.family and one.backend is not Backend.LEGACY
        for name in _tables(one)
    }
    of_nft: list[Saved] = []
    for one in texts or [one for one in found if one.is_json]:
        rest = one if one.is_json else _without(one, tables)
        if any(rest.text == other.text for other in of_nft):
            continue
        if (
            of_nft
            and not one.is_json
            and (shared := _opened(rest) & {name for other in of_nft for name in _opened(other)})
        ):
            message = f"a second dump of the table {min(shared)}"
            raise InputError(message, source=one.source, cure="give one of them")
        if rest.is_json or _opened(rest):
            of_nft.append(rest)
    return (*(_with_others(one, of_iptables) for one in of_iptables), *of_nft)


def _same(one: Saved, other: Saved) -> bool:
    """Report whether a dump has been given already.

    :raises InputError: another one with the same table has.
    """
    if one.family is not other.family or (
        None not in (one.backend, other.backend) and one.backend is not other.backend
    ):
        return False
    if one.text.lstrip("\n") == other.text.lstrip("\n"):
        return True
    if shared := _tables(one) & _tables(other):
        message = f"a second dump of the table {min(shared)} of {one.family}: the first is {other.source}"
        raise InputError(message, source=one.source, cure="give one of them")
    return False


def _with_others(one: Saved, others: Sequence[Saved]) -> Saved:
    """Take back what is said to be missing where another dump has it."""
    before, _, behind = _PARTS
    reasons = one.partial.removeprefix(before).removesuffix(behind).split("; ") if one.partial else []
    there = {name for other in others if other.family is one.family for name in _tables(other)}
    has_legacy = any(other.family is one.family and other.backend is Backend.LEGACY for other in others)
    left = [
        reason
        for reason in reasons
        if reason.removeprefix("there is no table ") not in there
        and not (has_legacy and "legacy tables present" in reason)
    ]
    return one if left == reasons else replace(one, partial=incomplete(left))


def _tables(one: Saved) -> set[str]:
    return set(_TABLE.findall(one.text))


def _opened(one: Saved) -> set[str]:
    return {found[1] for _, line, depth in _with_depth(one.text) if not depth and (found := _OPENED.match(line))}


def _with_depth(text: str) -> Iterator[tuple[int, str, int]]:
    """Return nft's lines with their places and how deep in braces each begins."""
    depth = 0
    for place, line in enumerate(text.split("\n")):
        yield place, line, depth
        if "{" in line or "}" in line:
            bare = _STRINGS.sub("", line)
            depth += bare.count("{") - bare.count("}")


def _without(one: Saved, tables: set[str]) -> Saved:
    """Leave out tables; the other lines stay where they are."""
    lines: list[str] = []
    leaving = False
    for _, line, depth in _with_depth(one.text):
        if not depth and (opened := _OPENED.match(line)):
            leaving = opened[1] in tables
        lines.append("" if leaving else line)
    return replace(one, text="\n".join(lines))


def _of_nft(piece: Piece, source: str) -> Saved:
    """Declare chains that rules jump to and that are not there.

    :raises InputError: a rule asks a set that is not there: of what type it is, nobody says.
    """
    table, start = "", 0
    known: set[str] = set()
    jumps: dict[str, None] = {}
    missing: list[tuple[int, str, list[str]]] = []

    def end() -> None:
        if lacking := [name for name in jumps if name not in known]:
            missing.append((start, table, lacking))

    for place, line, depth in _with_depth(piece.text):
        if not depth and (opened := _OPENED.match(line)):
            end()
            table, start, known, jumps = opened[1], place, set(), {}
        elif depth == 1 and (declared := _CONTAINER.match(line)):
            known |= {declared[1], f"@{declared[1]}"}
        elif depth > 1 and ("jump" in line or "goto" in line or "@" in line):
            bare = _STRINGS.sub("", line)
            jumps.update(dict.fromkeys(_TARGET.findall(bare)))
            jumps.update(dict.fromkeys(f"@{name}" for name in _SET.findall(bare)))
    end()
    return _declared(piece, source, missing)


def _declared(piece: Piece, source: str, missing: list[tuple[int, str, list[str]]]) -> Saved:
    if not missing:
        return Saved(source, piece.text, ProxyMode.NFTABLES)
    lines = piece.text.split("\n")
    numbers = array("L", range(1, len(lines) + 1))
    said: list[str] = []
    for place, table, names in reversed(missing):
        if sets := [name for name in names if name[0] == "@"]:
            message = f"a rule of the table {table} asks {sets[0]}, which is not in it"
            raise InputError(message, source=source, line=place + 1, cure=f"was it picked out by grep? {CURE}")
        said[:0] = [f"the chain {name} of the table {table} is not in it" for name in names]
        lines[place + 1 : place + 1] = [f"chain {name} {{ }}" for name in names]
        numbers[place + 1 : place + 1] = array("L", [place + 1] * len(names))
    text = "\n".join(lines)
    partial = f"{PART}nft prints: {'; '.join(said[:5])}{' and more' if len(said) > 5 else ''}."
    return Saved(source, text, ProxyMode.NFTABLES, partial=partial, numbers=tuple(numbers))
