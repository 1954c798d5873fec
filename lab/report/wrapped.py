# SPDX-License-Identifier: MIT
"""Lines that are longer than a terminal is wide: broken between words, and continued below their second column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rich.text import Text

#: What stands before the words of a line: blanks, and a name or a time that two blanks or more divide from the rest.
_COLUMN: Final = re.compile(r" *(?:\* |\S(?:\S| (?! )){0,20}  +)?")
_GAP: Final = re.compile(r"(?<=\S)  +(?=\S)")
_BLANK: Final = re.compile(r"(?<=\S) +(?=\S)")
_DEEPER: Final = 2  # columns


def wrapped(line: Text, width: int) -> Iterator[Text]:
    """Yield a line in parts that are no wider than the terminal, but for words that are.

    It is broken between columns, which two blanks divide, rather than between words.

    :param width: of the terminal, in columns.
    """
    for one in line.split("\n", allow_blank=True):
        yield from _parts(one, width)


def _parts(line: Text, width: int) -> Iterator[Text]:
    hang = _hang(line.plain, width)
    indent = Text()
    while len(indent) + len(line) > width:
        broken = _break(line.plain, width - len(indent), 0 if indent else hang)
        if broken is None:
            break
        end, start = broken
        yield indent + line[:end]
        line = line[start:]
        indent = Text(" " * max(0, min(hang, width - len(line.plain.split(" ", 1)[0]))))  # a long word begins before
    yield indent + line


def _hang(text: str, width: int) -> int:
    """Return where a line is continued: below its second column, or where that is far to the right, a little deeper."""
    column = _COLUMN.match(text)
    end = column.end() if column else 0
    blanks = len(text) - len(text.lstrip(" "))
    return end if blanks < end <= width // 2 else min(blanks + _DEEPER, width // 2)


def _break(text: str, width: int, least: int) -> tuple[int, int] | None:
    """Return where a part ends and the next one begins; None where no blank is left.

    :param least: where its first column ends; no part is that alone.
    """
    blanks = [blank.span() for blank in _BLANK.finditer(text)]
    gaps = [gap.span() for gap in _GAP.finditer(text) if width // 3 < gap.start() <= width and gap.end() > least]
    for fitting in (gaps, [one for one in blanks if one[0] <= width and one[1] > least], blanks[:1]):
        if fitting:
            return fitting[-1]
    return None
