# SPDX-License-Identifier: MIT
"""What is the same in several places of a file of results stands there once: each of them names it by its number.

A value is told from others by what it is made of, from the leaves upwards, so that each is kept and looked at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from json import dumps
from json.encoder import encode_basestring
from typing import Any, Final, TypeAlias

#: How long the JSON of a value is that a number is worth, in characters: the longest name and more.
_LEAST: Final = 24

#: How many values a file may stand for: a number for what numbers stand for multiplies them.
MOST: Final = 50_000_000

_NAME: Final = re.compile(r"\$(\d{1,9})")

#: A text as it is; of an object its keys, and of a list none, and the numbers of what they hold.
_Node: TypeAlias = str | tuple[tuple[str, ...] | None, tuple[int, ...]]


@dataclass
class Shared:
    """The values of a file that is written. All are taken before the first is told."""

    _numbers: dict[_Node, int] = field(default_factory=dict)
    _nodes: list[_Node] = field(default_factory=list)
    _lengths: list[int] = field(default_factory=list)
    _uses: list[int] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _table: list[str] = field(default_factory=list)

    def take(self, value: Any) -> int:  # noqa: ANN401 - whatever JSON can hold
        """Take a value, and return the number that :meth:`text` knows it by."""
        number = self._taken(value)
        self._uses[number] += 1
        return number

    def _taken(self, value: Any) -> int:  # noqa: ANN401
        if isinstance(value, dict):
            return self._kept((tuple(value), tuple(map(self._taken, value.values()))))
        if isinstance(value, list):
            return self._kept((None, tuple(map(self._taken, value))))
        if isinstance(value, str):
            return self._kept(encode_basestring(f"${value}" if value.startswith("$") else value))
        return self._kept(str(value) if type(value) is int else dumps(value))

    def _kept(self, node: _Node) -> int:
        number = self._numbers.get(node, -1)
        if number < 0:
            number = self._numbers[node] = len(self._nodes)
            children = () if isinstance(node, str) else node[1]
            keys = () if isinstance(node, str) else node[0] or ()
            length = len(node) if isinstance(node, str) else 2 + sum(self._lengths[child] + 1 for child in children)
            self._nodes.append(node)
            self._lengths.append(length + sum(len(key) + 3 for key in keys))
            self._uses.append(0)
            for child in children:
                self._uses[child] += 1
        return number

    def text(self, number: int) -> str:
        """Return a value as JSON, with names for what :attr:`table` has of it."""
        if self._uses[number] < 2 or self._lengths[number] < _LEAST:
            return self._told(number)
        if number not in self._names:
            told = self._told(number)
            self._names[number] = f'"${len(self._table)}"'
            self._table.append(told)
        return self._names[number]

    def _told(self, number: int) -> str:
        node = self._nodes[number]
        if isinstance(node, str):
            return node
        keys, children = node
        parts = map(self.text, children)
        if keys is None:
            return f"[{','.join(parts)}]"
        return f"{{{','.join(f'{dumps(key)}:{part}' for key, part in zip(keys, parts, strict=True))}}}"

    @property
    def table(self) -> Sequence[str]:
        """What has a name, as JSON, in the order of the names' numbers: each speaks of earlier ones alone."""
        return self._table


class Named:
    """The values of a file that is read.

    :param table: what has a name; each may speak of earlier ones alone.
    :raises ValueError: it is no such table; says why.
    """

    def __init__(self, table: Iterable[Any]) -> None:
        self._known: list[tuple[Any, int]] = []
        self._all = 0
        for value in table:
            self._known.append(self._whole(value))

    def whole(self, value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
        """Return a value with what its names stand for.

        :raises ValueError: nothing stands for a name, or all would be too much.
        """
        whole, size = self._whole(value)
        self._all += size
        if self._all > MOST:
            raise ValueError(f"it stands for more than {MOST:,} values")
        return whole

    def _whole(self, value: Any) -> tuple[Any, int]:  # noqa: ANN401
        if isinstance(value, str) and value.startswith("$"):
            return self._of_name(value)
        if isinstance(value, dict):
            found = {key: self._whole(one) for key, one in value.items()}
            return {key: one for key, (one, _size) in found.items()}, 1 + sum(size for _one, size in found.values())
        if isinstance(value, list):
            ones = list(map(self._whole, value))
            return [one for one, _size in ones], 1 + sum(size for _one, size in ones)
        return value, 1

    def _of_name(self, name: str) -> tuple[Any, int]:
        if name.startswith("$$"):
            return name[1:], 1
        found = _NAME.fullmatch(name)
        if found is None or int(found[1]) >= len(self._known):
            raise ValueError(f"nothing stands for {name:.20}")
        return self._known[int(found[1])]
