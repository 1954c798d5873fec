# SPDX-License-Identifier: MIT
"""The tables of `lab reach`, for a terminal and for a page: clients by addresses, or questions by kube-proxies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.evidence.reach import Fate
from lab.report.tone import Tone
from lab.results.reach import Asked, Cell, Client, Reaches


@dataclass(frozen=True)
class Place:
    """A place of the table.

    :param cell: what became of the questions there, and ``of`` where; None where none was asked.
    :param turns: whether the kube-proxy to the left does otherwise.
    """

    of: Reaches
    cell: Cell | None
    turns: bool = False

    @property
    def tone(self) -> Tone:
        """How it looks."""
        return tone_of(self.cell) if self.cell else Tone.NOTHING


@dataclass(frozen=True)
class Row:
    """A row.

    :param asked: which address, where the columns are kube-proxies.
    """

    client: Client
    asked: Asked | None
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Grid:
    """The table of one port of a Service.

    :param headings: of the columns, in lines.
    """

    service: str
    headings: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]


def grids(found: Sequence[Reaches]) -> Iterator[Grid]:
    """Yield a table for each Service's port: clients by addresses; with several kube-proxies, questions by these."""
    services = dict.fromkeys(asked.service for one in found for asked in one.asked)
    for service in services:
        yield _by_address(found[0], service) if len(found) == 1 else _by_proxy(found, service)


def heading(asked: Asked) -> tuple[str, str]:
    """Return the lines that stand above an address."""
    return asked.target, f"{asked.address}/{asked.protocol}"


def tone_of(cell: Cell) -> Tone:
    """Return how a cell looks."""
    if cell.surprises:
        return Tone.HARMFUL
    if cell.expected is None:
        return Tone.NOTHING
    return Tone.FINE if all(one.fate is Fate.CONNECTED for one in cell.reached) else Tone.NOTHING


def counted(cell: Cell, of: Reaches) -> Iterator[str]:
    """Yield what became of a client's questions, each thing once, with its count where that was asked for."""
    for words, count in cell.counts.items():
        yield f"{words} ({count:,} of {len(cell.reached):,})" if of.repeats > 1 else words


def summary(cells: Sequence[Cell], labs: int) -> tuple[str, Tone]:
    """Return in a sentence how many cells are as expected, and how it looks."""
    judged = [cell for cell in cells if cell.expected is not None]
    bad = sum(bool(cell.surprises) for cell in judged)
    open_ = len(cells) - len(judged)
    parts = [f"{len(judged) - bad:,} of {len(judged):,} as Kubernetes documents it"] if judged else []
    if open_ and judged:
        parts.append(f"{open_:,} of which nobody says what is to become")
    elif open_:
        asked = [one for cell in cells for one in cell.reached]
        through = sum(one.fate is Fate.CONNECTED for one in asked)
        parts.append(f"nobody says what is to become of any; {through:,} of {len(asked):,} questions got through")
    where = f" with {labs} kube-proxies" if labs > 1 else ""
    count = "1 cell" if len(cells) == 1 else f"{len(cells):,} cells"
    return f"{count}{where}: {', '.join(parts)}", Tone.HARMFUL if bad else Tone.FINE if judged else Tone.NOTHING


def _by_address(one: Reaches, service: str) -> Grid:
    columns = [asked for asked in one.asked if asked.service == service]
    rows = (
        Row(client, None, tuple(Place(one, one.cell(client, asked)) for asked in columns)) for client in one.clients
    )
    return Grid(service, tuple(map(heading, columns)), tuple(rows))


def _by_proxy(found: Sequence[Reaches], service: str) -> Grid:
    clients = dict.fromkeys(client for one in found for client in one.clients)
    columns = dict.fromkeys(asked for one in found for asked in one.asked if asked.service == service)
    rows = (Row(client, asked, tuple(_beside(found, client, asked))) for client in clients for asked in columns)
    headings = tuple(tuple(one.proxies.split(" ", 1)) for one in found)
    return Grid(service, headings, tuple(row for row in rows if any(place.cell for place in row.places)))


def _beside(found: Sequence[Reaches], client: Client, asked: Asked) -> Iterator[Place]:
    before = None
    for one in found:
        cell = one.cell(client, asked)
        yield Place(one, cell, turns=bool(cell and before and cell.likeness != before.likeness))
        before = cell
