"""A matrix for a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from rich.table import Table
from rich.text import Text

from lab.matrix import Matrix
from lab.report import cells
from lab.report.cells import Cell, Tone
from lab.report.closing import remarks

_STYLES: Final = {Tone.FINE: "green", Tone.HARMLESS: "yellow", Tone.HARMFUL: "bold red", Tone.NOTHING: ""}

#: Before what the kernel to the left does otherwise.
TURNS: Final = "≠ "


def table(matrix: Matrix) -> Table:
    """Return the table: trials by kernels, a section a case."""
    drawn = Table(highlight=False)
    drawn.add_column("case", no_wrap=True)
    drawn.add_column("fix", overflow="fold")
    for column in matrix.columns:
        failed = "" if column.report else "bold red"
        drawn.add_column(Text(column.label, failed) + Text(f"\n{column.release}", "dim"), overflow="fold")
    for case, group in itertools.groupby(cells.rows(matrix), key=lambda row: row[0].case):
        for index, (trial, row) in enumerate(group):
            drawn.add_row("" if index else case, trial.fix, *map(_cell, row))
        drawn.add_section()
    return drawn


def _cell(cell: Cell) -> Text:
    text = Text(f"{TURNS if cell.turns else ''}{cell.word}", _STYLES[cell.tone])
    if cell.judgement:
        text.append(f", {cell.judgement}", "dim")
    if cell.result is not None:  # what kept a trial from being run is told once, below
        for complaint in cell.complaints:
            text.append(f"\n{complaint}", "bold red")
    return text


def lines(matrix: Matrix) -> Iterator[Text]:
    """Say what the matrix means, line by line."""
    for remark in remarks(matrix):
        yield Text(remark.text, _STYLES[remark.tone])
        for line in remark.console:
            yield Text(f"    {line}", "dim")
