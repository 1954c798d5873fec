# SPDX-License-Identifier: MIT
"""A matrix in Markdown, for issues, job summaries and READMEs."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lab.report import cells
from lab.report.cells import Cell
from lab.report.closing import preface, remarks
from lab.report.timeline import timeline_text
from lab.report.tone import Tone
from lab.results.matrix import Matrix


def markdown(matrix: Matrix) -> str:
    """Return what was judged, the table, what it means, and the timelines of what was not expected."""
    return "\n".join(
        ("  \n".join(map(_plain, preface(matrix))), "", *_table(matrix), "", *_remarks(matrix), *_timelines(matrix))
    )


def _table(matrix: Matrix) -> Iterator[str]:
    yield _row("case", "fix", *(column.label for column in matrix.columns))
    yield _row(*["---"] * (2 + len(matrix.columns)))
    before = ""
    for trial, name, row in cells.rows(matrix):
        yield _row("" if name == before else name, trial.fix, *map(_cell, row))
        before = name


def _row(*fields: str) -> str:
    return f"| {' | '.join(fields)} |"


def _cell(cell: Cell) -> str:
    word = f"**{cell.word}**" if cell.tone is Tone.HARMFUL else cell.word
    parts = [f"{'≠ ' if cell.turns else ''}{word}", *filter(None, (cell.judgement, cell.runs))]
    complaints = cell.complaints if cell.result is not None else ()
    return "<br>".join((", ".join(parts), *(_plain(complaint) for complaint in complaints)))


def _remarks(matrix: Matrix) -> Iterator[str]:
    for remark in remarks(matrix):
        yield f"* {_plain(remark.text)}"
        if remark.console:
            yield from ("", "  ```text", *(f"  {line}" for line in remark.console), "  ```", "")


def _timelines(matrix: Matrix) -> Iterator[str]:
    for title, result in cells.unexpected(matrix):
        text = timeline_text(result.timeline)
        yield from ("", f"<details><summary>{escape(title)}</summary>", "", "```text", text, "```", "", "</details>")


def _plain(text: str) -> str:
    """Keep a text what it is, in a cell as well as in a list, on one line."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
