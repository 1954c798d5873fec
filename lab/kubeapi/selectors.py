# SPDX-License-Identifier: MIT
"""Label and field selectors, as the parameters of a list or a watch write them.

The forms are those of k8s.io/apimachinery/pkg/labels and pkg/fields: ``a``, ``!a``, ``a=b``, ``a!=b``, ``a in (b,c)``,
``a notin (b,c)``, with commas between them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from lab.kubeapi.resources import Object

Selects: TypeAlias = Callable[[Object], bool]

_KEY: Final = r"[A-Za-z0-9./_-]+"
_AMONG: Final = re.compile(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)")
_EQUAL: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*([^,\s]*)")
_THERE: Final = re.compile(rf"(!?)\s*({_KEY})")
_PARTS: Final = re.compile(r",(?![^()]*\))")


class SelectorError(ValueError):
    """A selector cannot be understood."""


def labels(text: str) -> Selects:
    """Return what tells whether a label selector selects an object.

    :raises SelectorError: it is none.
    """
    wanted = [_requirement(part) for part in _parts(text)]
    return lambda one: all(is_met(one.get("metadata", {}).get("labels") or {}) for is_met in wanted)


def fields(text: str) -> Selects:
    """Return what tells whether a field selector selects an object; a field that is not there is empty.

    :raises SelectorError: it is none.
    """
    wanted = []
    for part in _parts(text):
        found = _EQUAL.fullmatch(part)
        if not found:
            raise SelectorError(f"unable to understand the field selector {part!r}")
        wanted.append((found[1].split("."), found[3], found[2] != "!="))
    return lambda one: all((_at(one, path) == value) is equal for path, value, equal in wanted)


def _parts(text: str) -> Iterator[str]:
    return (part.strip() for part in _PARTS.split(text) if part.strip())


def _requirement(part: str) -> Callable[[dict[str, str]], bool]:
    if found := _AMONG.fullmatch(part):
        key, values, inside = found[1], {value.strip() for value in found[3].split(",")}, found[2] == "in"
        # What has no such label is not in any set (Requirement.Matches).
        return lambda has: has[key] in values if inside and key in has else not inside and has.get(key) not in values
    if found := _EQUAL.fullmatch(part):
        key, value, equal = found[1], found[3], found[2] != "!="
        return lambda has: (has.get(key) == value) is equal
    if found := _THERE.fullmatch(part):
        key, there = found[2], not found[1]
        return lambda has: (key in has) is there
    raise SelectorError(f"unable to understand the label selector {part!r}")


def _at(one: Object, path: list[str]) -> str:
    value: object = one
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else str(value)
