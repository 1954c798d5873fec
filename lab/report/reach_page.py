# SPDX-License-Identifier: MIT
"""What is on the page of `lab reach`, before it is HTML: the answer, the facts, a table a Service, and every cell."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lab.evidence.reach import Fate, Reached
from lab.report.affected import Remark
from lab.report.reach_grid import Grid, Place, Row, counted, grids, heading, summary
from lab.report.tone import Tone
from lab.results.reach import Cell, ReachReport

_UNEXPECTED: Final = "not as expected"
_OTHERWISE: Final = "otherwise than to the left"


@dataclass(frozen=True)
class Entry:
    """One cell.

    :param name: what was asked, and ``of``, where.
    :param words: what became of it, each thing once; ``seen`` has what is known of each.
    :param outcomes: what the filter calls it.
    :param asked: how often.
    :param again: the command that shows the rules of its packet; empty where there is none.
    """

    id: str
    name: str
    of: str
    tone: Tone
    turns: bool
    words: tuple[str, ...]
    outcomes: str
    asked: int
    surprises: tuple[str, ...]
    expected: str
    seen: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    again: str


@dataclass(frozen=True)
class Line:
    """A row of a table; None in it where nothing was asked."""

    name: str
    small: str
    entries: tuple[Entry | None, ...]


@dataclass(frozen=True)
class Table:
    """The table of a Service's port.

    :param headings: in two lines each, of which the second may be empty.
    """

    id: str
    service: str
    headings: tuple[tuple[str, str], ...]
    rows: tuple[Line, ...]


class ReachPage:
    """What `lab reach` found out as a page tells it.

    :ivar sought: and ``counted``: what its filter finds, and what that is.
    """

    sought, counted = "client, address, host", "cells"

    def __init__(self, found: ReachReport) -> None:
        self._found = found
        self.lab = found.lab
        self._numbers = itertools.count(1)
        cells = [cell for one in found.reaches for cell in one.cells]
        self.by_proxy = len(found.reaches) > 1
        self.answer = self._answer(cells)
        remarks = dict.fromkeys(remark for one in found.reaches for remark in one.remarks)
        self.preface: list[str] = []
        self.tables = [self._table(number, grid) for number, grid in enumerate(grids(found.reaches), 1)]
        self.entries = [entry for one in self.tables for row in one.rows for entry in row.entries if entry]
        bad = [one for one in self.entries if one.surprises]
        self.remarks = [
            *(Remark(f"{one.name}: {'; '.join(one.surprises)}. Expected: {one.expected}.", one.tone) for one in bad),
            *(Remark(words, Tone.HARMLESS) for words in remarks),
        ]

    def _answer(self, cells: Sequence[Cell]) -> Remark:
        words, tone = summary(cells, len(self._found.reaches))
        if tone is Tone.HARMFUL:
            told = "NOT AS DOCUMENTED"
        elif any(cell.expected for cell in cells):
            told = "AS DOCUMENTED"
        else:
            told, tone = "ASKED, AND HELD AGAINST NOTHING", Tone.NOTHING
        return Remark(f"{told}: {self.title}. {words}.", tone)

    @property
    def title(self) -> str:
        """What the page is about, in a few words."""
        topologies = ", ".join(dict.fromkeys(one.topology for one in self._found.reaches))
        proxies = list(dict.fromkeys(one.proxies for one in self._found.reaches))
        which = f"kube-proxy in {proxies[0]}" if len(proxies) == 1 else f"{len(proxies)} kube-proxies"
        return f"{topologies} on Linux {self._found.kernel}, {which}"

    @property
    def table_title(self) -> str:
        """What the tables are of."""
        return "Questions by kube-proxies" if self.by_proxy else "Clients by addresses"

    @property
    def facts(self) -> Iterator[tuple[str, str]]:
        """What was asked where, and when, and by which command."""
        found = self._found
        values = {
            "kernel": [f"Linux {found.kernel}"],
            "kube-proxy": [one.proxies for one in found.reaches],
            "family": [str(one.family) for one in found.reaches],
            "topology": [one.topology for one in found.reaches],
            "date": [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.when)) if found.when else ""],
            "again by": [found.command],
        }
        for name, its in values.items():
            if words := ", ".join(dict.fromkeys(filter(None, its))):
                yield name, words

    @property
    def outcomes(self) -> list[str]:
        """What the tables can be narrowed to."""
        there = {word for entry in self.entries for word in entry.outcomes.split("|")}
        fates = [str(fate) for fate in Fate]
        return [word for word in (*fates, _UNEXPECTED, _OTHERWISE) if word in there]

    def _table(self, number: int, grid: Grid) -> Table:
        headings = tuple((words[0], words[1] if len(words) > 1 else "") for words in grid.headings)
        return Table(f"s{number}", grid.service, headings, tuple(self._line(row) for row in grid.rows))

    def _line(self, row: Row) -> Line:
        small = " ".join(("to", *heading(row.asked))) if row.asked else row.client.place
        entries = (self._entry(place, place.cell) if place.cell else None for place in row.places)
        return Line(row.client.host, small, tuple(entries))

    def _entry(self, place: Place, cell: Cell) -> Entry:
        of, fates = place.of, (str(one.fate) for one in cell.reached)
        marks = [*([_UNEXPECTED] if cell.surprises else []), *([_OTHERWISE] if place.turns else [])]
        first = {one.words: one for one in reversed(cell.reached)}
        where = f", {of.proxies}" if self.by_proxy else ""
        return Entry(
            id=f"t{next(self._numbers)}",
            name=f"{cell.client.host} to {cell.asked}{where}",
            of=f"{cell.client}, to {cell.asked.service} by {cell.asked.target}; {of.proxies}, {of.family}",
            tone=place.tone,
            turns=place.turns,
            words=tuple(counted(cell, of)),
            outcomes="|".join(dict.fromkeys((*fates, *marks))),
            asked=len(cell.reached),
            surprises=cell.surprises,
            expected=f"{cell.expected}: {cell.expected.why}".removesuffix(".") if cell.expected else "",
            seen=tuple((words, tuple(_facts(first[words]))) for words in cell.counts),
            again=of.trace(cell),
        )


def _facts(one: Reached) -> Iterator[tuple[str, str]]:
    """Yield everything that is known of what became of a question, by what it is called."""
    if one.server:
        yield "answered by", f"{one.server} at {one.server_address}"
    if one.own is not None and one.seen_as is not None:
        kept = "kept" if one.is_kept else "not the client's own: masqueraded"
        yield "source", f"{one.own} asked, and the server saw {one.seen_as}: {kept}"
    if not one.server or one.fate is not Fate.CONNECTED:
        yield "what became of it", str(one.fate)
    if one.at:
        yield "where it stopped", f"{one.at}{f': {one.how}' if one.how else ''}"
    elif one.how:
        yield "how", one.how
    if one.rule:
        yield "rule", one.rule
    if one.node:
        yield "conntrack", f"{one.node} has {one.entry or 'no entry of it'}"
