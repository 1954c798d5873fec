# SPDX-License-Identifier: MIT
"""What became of the questions to Services, for a terminal: a table of clients by addresses, and what is unexpected."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from lab.evidence.reach import Fate
from lab.report.reach_grid import Grid, Place, counted, grids, heading, summary
from lab.report.tone import STYLES, Tone
from lab.results.reach import Cell, Client, Reaches
from lab.tones import QUIET

#: Before what the kube-proxy to the left does otherwise.
TURNS: Final = "≠ "
_FEW: Final = 6  # cells; of so many, everything that is known is told


def tables(found: Sequence[Reaches]) -> Iterator[Table]:
    """Yield a table for each Service's port: clients by addresses; with several kube-proxies, questions by these."""
    for grid in grids(found):
        yield _by_address(grid) if len(found) == 1 else _by_proxy(grid)


def lines(found: Sequence[Reaches]) -> Iterator[Text]:
    """Yield what is unexpected, each with what was expected and what was seen, and how many cells are as expected.

    Where a question does not get through and is not to, it is said by whose word, once for each.
    """
    cells = [(one, cell) for one in found for cell in one.cells]
    for remark in dict.fromkeys(remark for one in found for remark in one.remarks):
        yield Text(remark, STYLES[Tone.HARMLESS])
    for one, cell in cells:
        if cell.surprises and cell.expected:
            where = f" ({one.proxies})" if len(found) > 1 else ""
            yield Text(f"{cell.client.host} to {cell.asked}{where}: {'; '.join(cell.surprises)}", STYLES[Tone.HARMFUL])
            yield Text(f"    expected: {cell.expected}: {cell.expected.why}")
            yield Text(f"    seen:     {_first_surprise(cell)}")
            if command := one.trace(cell):
                yield Text(f"    rules:    {command}")
    if len(cells) <= _FEW:
        for _one, cell in cells if not any(cell.surprises for _one, cell in cells) else ():
            yield from (Text(f"{cell.client.host} to {cell.asked}: {words}") for words in _known(cell))
    yield from _reasons(cells)
    yield from _rules(cells)
    words, tone = summary([cell for _one, cell in cells], len(found))
    yield Text(words, STYLES[tone])


def _reasons(cells: Sequence[tuple[Reaches, Cell]]) -> Iterator[Text]:
    """Yield why questions that do not get through are not to, each reason with what became of them, and with the first.

    Of many cells not why there is no way: the table names the host that has no route.
    """
    found: dict[tuple[Fate, str], list[str]] = {}
    for _one, cell in cells:
        fates: dict[Fate, None] = dict.fromkeys(one.fate for one in cell.reached if one.fate is not Fate.CONNECTED)
        if cell.expected and not cell.surprises:
            is_route = cell.expected.fates[0] is Fate.NO_WAY and len(cells) > _FEW
            for fate in fates if not is_route else ():
                found.setdefault((fate, cell.expected.why), []).append(f"{cell.client.host} to {cell.asked}")
    for (fate, why), questions in found.items():
        names = list(dict.fromkeys(questions))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Text(f"{fate}, as expected: {why}: {names[0]}{more}", STYLES[Tone.NOTHING])


def _rules(cells: Sequence[tuple[Reaches, Cell]]) -> Iterator[Text]:
    """Yield each rule that decided, with what it decided about."""
    found: dict[str, dict[str, None]] = {}
    proxies = {one.proxies for one, _cell in cells}
    for one, cell in cells:
        for reached in cell.reached:
            if reached.rule:
                where = f" ({one.proxies})" if len(proxies) > 1 else ""
                found.setdefault(reached.rule, {})[f"{cell.client.host} to {cell.asked}{where}"] = None
    for rule, questions in found.items():
        yield Text(f"{rule}:", "bold")
        yield Text(f"    {'; '.join(questions)}")


def _first_surprise(cell: Cell) -> str:
    """Return what is known of the first question that was not as expected, else of the first."""
    return next((one.known_by for one in cell.reached if one.words in cell.surprises), cell.reached[0].known_by)


def _known(cell: Cell) -> Iterator[str]:
    """Yield what is known of a cell, once for each thing that became of it."""
    told = {one.words: one.known_by for one in reversed(cell.reached)}
    yield from (told[words] for words in cell.counts)


def _by_address(grid: Grid) -> Table:
    drawn = _table(grid, ("client",))
    for row in grid.rows:
        drawn.add_row(_client(row.client), *map(_cell, row.places))
    return drawn


def _by_proxy(grid: Grid) -> Table:
    drawn = _table(grid, ("client", "to"))
    for client, rows in itertools.groupby(grid.rows, key=lambda row: row.client):
        first = _client(client)
        for row in rows:
            drawn.add_row(first, "\n".join(heading(row.asked)) if row.asked else "", *map(_cell, row.places))
            first = Text()
        drawn.add_section()
    return drawn


def _table(grid: Grid, names: Sequence[str]) -> Table:
    drawn = Table(title=grid.service, title_justify="left", title_style="bold", show_lines=True, highlight=False)
    for name in names:
        drawn.add_column(name, no_wrap=True)
    for words in grid.headings:
        drawn.add_column(Text("\n".join(words)), overflow="fold")
    return drawn


def _client(client: Client) -> Text:
    return Text.assemble(client.host, (f"\n{client.place}", QUIET))


def _cell(place: Place) -> Text:
    cell = place.cell
    if cell is None:
        return Text("-")
    style = STYLES[place.tone]
    text = Text(TURNS if place.turns else "")
    text.append("\n".join(counted(cell, place.of)), style)
    if cell.surprises:
        text.append("\nNOT AS EXPECTED", style)
    return text
