# SPDX-License-Identifier: MIT
"""A matrix for a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from lab.report import cells
from lab.report.cells import Cell
from lab.report.closing import Remark, remarks
from lab.report.timeline import timeline_lines
from lab.report.tone import STYLES
from lab.results.matrix import Column, Matrix
from lab.results.result import Result, Trial
from lab.tones import OOPS, QUIET

#: Before what the kernel to the left does otherwise.
TURNS: Final = "≠ "

_CELL: Final = 12  # columns, for the longest word with a mark before it and a comma behind


def tables(matrix: Matrix, width: int) -> Iterator[Table]:
    """Yield the table, trials by kernels, a section a case; in several where one is wide.

    :param width: of the terminal, in columns.
    """
    rows = list(cells.rows(matrix))
    cases, fixes = {name for _trial, name, _row in rows}, {trial.fix for trial, _name, _row in rows}
    names = sum(max(map(len, words), default=0) for words in (cases, fixes))
    room = max(1, (width - names - 7) // (_CELL + 3))  # each column has two spaces and a line
    for first in range(0, len(matrix.columns), room):
        part = [(trial, name, row[first : first + room]) for trial, name, row in rows]
        yield _table(matrix.columns[first : first + room], part)


def _table(columns: Sequence[Column], rows: Sequence[tuple[Trial, str, Sequence[Cell]]]) -> Table:
    drawn = Table(highlight=False)
    drawn.add_column("case", no_wrap=True)
    drawn.add_column("fix", no_wrap=True)
    for column in columns:
        title = Text(column.label, "" if column.report else OOPS)
        if not column.label.startswith(column.version):
            title.append(f"\n{column.version}", QUIET)
        drawn.add_column(title, min_width=_CELL)
    for name, group in itertools.groupby(rows, key=lambda row: row[1]):
        for index, (trial, _name, row) in enumerate(group):
            drawn.add_row("" if index else name, trial.fix, *map(_cell, row))
        drawn.add_section()
    return drawn


def _cell(cell: Cell) -> Text:
    text = Text(f"{TURNS if cell.turns else ''}{cell.word}", STYLES[cell.tone])
    if cell.judgement:
        text.append(f", {cell.judgement}", QUIET)
    if cell.runs:
        text.append(f", {cell.runs}", QUIET)
    if cell.result is not None:  # what kept a trial from being run is told once, below
        for complaint in cell.complaints:
            text.append(f"\n{complaint}", OOPS)
    return text


def timelines(matrix: Matrix, *, but: Result | None = None) -> Iterator[Text]:
    """Draw the timelines of the trials that did not give what was expected.

    :param but: without this one, which was drawn already.
    """
    for title, result in cells.unexpected(matrix):
        if result is not but:
            yield Text(title, OOPS)
            yield from timeline_lines(result.timeline)
            yield Text()


def lines(matrix: Matrix) -> Iterator[Text]:
    """Report what the matrix means, line by line."""
    return sentences(remarks(matrix))


def sentences(said: Iterable[Remark]) -> Iterator[Text]:
    """Return remarks as a terminal has them. What they quote is text, whatever brackets are in it."""
    for remark in said:
        yield Text(remark.text, STYLES[remark.tone])
        for line in remark.console:
            yield Text(f"    {line}", QUIET)
