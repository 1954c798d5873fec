# SPDX-License-Identifier: MIT
"""Reads what ``nft -j list ruleset`` prints (libnftables-json(5)): what is kube-proxy's, ready to be loaded.

What it means is not read here: a kernel loads it, and lists it as text (see :func:`lab.rules.scratch.listed`).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from lab.errors import InputError
from lab.kubeproxy.nftables import table_of
from lab.rules import dump, owners
from lab.rules.nft_dump import ForeignChains
from lab.rules.pieces import CURE, CUT_OFF
from lab.vocabulary import Family

#: What is loaded, in that order: elements and rules may jump to any chain. nft 1.0.6 lists sets before chains.
_ORDER: Final = ("table", "chain", "set", "map", "element", "rule")
_ELEMENTS: Final = 200  # of a set or a map in one object, so that it can be sent in parts


@dataclass(frozen=True)
class JsonDump:
    """What of a dump is kube-proxy's in one family.

    :param objects: to be added in this order, without handles.
    :param others: and ``owners``: as of a dump that is text.
    :param notes: as of a dump that is text.
    """

    objects: tuple[dict[str, Any], ...]
    others: Counter[str]
    owners: Counter[str]
    notes: tuple[str, ...]


def read(text: str, source: str, family: Family) -> JsonDump:
    """Read a dump.

    :param source: what to call it in errors.
    :raises InputError: with the line, where it is no JSON, no dump, or has no table of kube-proxy in this family.
    """
    wanted = table_of(family)
    found: list[tuple[str, dict[str, Any]]] = []
    others, whose = Counter[str](), Counter[str]()
    tables: set[str] = set()
    foreign = ForeignChains(family)
    for kind, content in _objects(text, source):
        table = f"{content.get('family')} {content.get('name' if kind == 'table' else 'table')}"
        if kind == "table":
            tables.add(table)
        if table != wanted:
            _foreign(foreign, kind, table, content)
        if kind == "rule" and table != wanted:
            others[table] += 1
            whose[owners.of_nft(table, str(content.get("chain")), str(content.get("comment", "")))] += 1
        if table == wanted and kind in _ORDER:
            content.pop("handle", None)
            found += _in_portions(kind, content)
    if wanted not in tables:
        raise dump.no_table(wanted, source, foreign.names)
    found.sort(key=lambda one: _ORDER.index(one[0]))
    return JsonDump(tuple({kind: content} for kind, content in found), others, whose, foreign.left_by_iptables_mode())


def _foreign(chains: ForeignChains, kind: str, table: str, content: dict[str, Any]) -> None:
    if kind == "chain":
        chains.chain(table, str(content.get("name")))
        if "hook" in content:
            chains.hook(table, str(content.get("name")))
    elif kind == "rule":
        expressions = [one for one in content.get("expr", ()) if isinstance(one, dict)]
        verdicts = [one[word] for one in expressions for word in ("jump", "goto") if isinstance(one.get(word), dict)]
        chains.jumps(table, str(content.get("chain")), [str(verdict.get("target")) for verdict in verdicts])


def _objects(text: str, source: str) -> list[tuple[str, dict[str, Any]]]:
    # Warnings that nft prints beside it begin with #.
    lines = ("" if line.lstrip().startswith("#") else line for line in text.split("\n"))
    try:
        objects = json.loads("\n".join(lines))["nftables"]
        return [(kind, dict(content)) for one in objects for kind, content in one.items()]
    except json.JSONDecodeError as error:
        raise InputError(f"no JSON: {error.msg}", source=source, line=error.lineno, cure=CUT_OFF) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise InputError("JSON, but not nft's", source=source, cure=CURE) from None


def _in_portions(kind: str, content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    elements = content.pop("elem", []) if kind in ("set", "map") else []
    place = {key: content.get(key) for key in ("family", "table", "name")}
    portions = [elements[start : start + _ELEMENTS] for start in range(0, len(elements), _ELEMENTS)]
    return [(kind, content), *(("element", {**place, "elem": portion}) for portion in portions)]
