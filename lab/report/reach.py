# SPDX-License-Identifier: MIT
"""What became of the questions to Services, for a terminal: a table of clients by addresses, and what is unexpected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from lab.evidence.reach import Fate
from lab.report.tone import STYLES, Tone
from lab.results.reach import Asked, Cell, Reaches

#: Before what the kube-proxy to the left does otherwise.
TURNS: Final = "≠ "
_FEW: Final = 6  # cells; of so many, everything that is known is told


def tables(found: Sequence[Reaches]) -> Iterator[Table]:
    """Yield a table for each Service's port: clients by addresses; with several kube-proxies, questions by these."""
    services = dict.fromkeys(asked.service for one in found for asked in one.asked)
    for service in services:
        yield _by_address(found[0], service) if len(found) == 1 else _by_proxy(found, service)


def lines(found: Sequence[Reaches]) -> Iterator[Text]:
    """Yield what is unexpected, each with what was expected and what was seen, and how many cells are as expected."""
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
    yield _summary([cell for _one, cell in cells], len(found))


def _first_surprise(cell: Cell) -> str:
    """Return what is known of the first question that was not as expected, else of the first."""
    return next((one.known_by for one in cell.reached if one.words in cell.surprises), cell.reached[0].known_by)


def _known(cell: Cell) -> Iterator[str]:
    """Yield what is known of a cell, once for each thing that became of it."""
    told = {one.words: one.known_by for one in reversed(cell.reached)}
    yield from (told[words] for words in cell.counts)


def _summary(cells: Sequence[Cell], labs: int) -> Text:
    judged = [cell for cell in cells if cell.expected is not None]
    bad = sum(bool(cell.surprises) for cell in judged)
    open_ = len(cells) - len(judged)
    parts = [f"{len(judged) - bad:,} of {len(judged):,} as Kubernetes documents it"]
    if open_:
        parts.append(f"{open_:,} of which nobody says what is to become")
    where = f" with {labs} kube-proxies" if labs > 1 else ""
    count = "1 cell" if len(cells) == 1 else f"{len(cells):,} cells"
    return Text(f"{count}{where}: {', '.join(parts)}", STYLES[Tone.HARMFUL if bad else Tone.FINE])


def _by_address(one: Reaches, service: str) -> Table:
    columns = [asked for asked in one.asked if asked.service == service]
    drawn = _table(service, ("client",), [_heading(asked) for asked in columns])
    for client in one.clients:
        row = [one.cell(client, asked) for asked in columns]
        drawn.add_row(Text.assemble(client.host, (f"\n{client.place}", "dim")), *(_cell(cell, one) for cell in row))
    return drawn


def _by_proxy(found: Sequence[Reaches], service: str) -> Table:
    drawn = _table(service, ("client", "to"), [Text(one.proxies.replace(" ", "\n", 1)) for one in found])
    clients = dict.fromkeys(client for one in found for client in one.clients)
    columns = dict.fromkeys(asked for one in found for asked in one.asked if asked.service == service)
    for client in clients:
        first = Text.assemble(client.host, (f"\n{client.place}", "dim"))
        for asked in columns:
            row = [one.cell(client, asked) for one in found]
            if any(row):
                before = [None, *row[:-1]]
                words = [
                    _cell(cell, one, turns=bool(cell and then and cell.likeness != then.likeness))
                    for one, cell, then in zip(found, row, before, strict=True)
                ]
                drawn.add_row(first, _heading(asked), *words)
                first = Text()
        drawn.add_section()
    return drawn


def _table(service: str, names: Sequence[str], headings: Sequence[Text]) -> Table:
    drawn = Table(title=service, title_justify="left", title_style="bold", show_lines=True, highlight=False)
    for name in names:
        drawn.add_column(name, no_wrap=True)
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    return drawn


def _heading(asked: Asked) -> Text:
    return Text(f"{asked.target}\n{asked.address}/{asked.protocol}")


def _cell(cell: Cell | None, of: Reaches, *, turns: bool = False) -> Text:
    """Return what became of a client's questions, each thing once, with its count where that was asked for."""
    if cell is None:
        return Text("-")
    text = Text(TURNS if turns else "")
    style = STYLES[_tone(cell)]
    for number, (words, count) in enumerate(cell.counts.items()):
        times = f" ({count:,} of {len(cell.reached):,})" if of.repeats > 1 else ""
        text.append(f"{chr(10) if number else ''}{words}{times}", style)
    if cell.surprises:
        text.append("\nNOT AS EXPECTED", style)
    return text


def _tone(cell: Cell) -> Tone:
    if cell.surprises:
        return Tone.HARMFUL
    if cell.expected is None:
        return Tone.NOTHING
    return Tone.FINE if all(one.fate is Fate.CONNECTED for one in cell.reached) else Tone.NOTHING
