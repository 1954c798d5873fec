# SPDX-License-Identifier: MIT
"""A table without columns: for terminals that have no room for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.table import Table
from rich.text import Text

_INDENT: Final = "  "


def unfolded(table: Table) -> Iterator[Text]:
    """Yield a table row by row: its first cell, and each other one below that, with its column's heading before it."""
    if table.title:
        yield _text(table.title)
    first, *others = ([_text(cell) for cell in column.cells] for column in table.columns)
    headings = [_in_a_line(_text(column.header), " ") for column in table.columns[1:]]
    for index, name in enumerate(first):
        if name.plain:
            yield Text(name.plain, "bold")
        for heading, cells in zip(headings, others, strict=True):
            yield Text.assemble(_INDENT, heading, ": ", _in_a_line(cells[index], ", "))


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _in_a_line(text: Text, between: str) -> Text:
    """Return a cell's lines in one; a name that was broken behind a hyphen is whole again."""
    whole = Text()
    for line in text.split():
        behind = {"": "", "-": "", ",": " "}.get(whole.plain[-1:], between)
        whole = whole.append(behind).append(line)
    return whole
