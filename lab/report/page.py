# SPDX-License-Identifier: MIT
"""What is on the page of a matrix, before it is HTML: the answer, the facts, the table and the trials."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from lab.kubeproxy.releases import find_release
from lab.report import cells
from lab.report.affected import HEADLINE, NO_FIX, Remark
from lab.report.cells import Cell
from lab.report.closing import preface, remarks
from lab.report.sequence import sequence
from lab.report.sources import sources
from lab.report.timeline import timeline_text
from lab.report.tone import Tone
from lab.report.walks import drawn
from lab.report.window_diagram import window_diagram
from lab.results.matrix import Matrix
from lab.results.places import place
from lab.results.result import Result, Trial

#: Of each case by its name: its group's title and its own.
Catalogue: TypeAlias = Mapping[str, tuple[str, str]]

#: What all diagrams of a page may take, in characters: a page of a thousand trials stays below 5 MB with this.
ROOM: Final = 1_000_000
_OTHERS: Final = "cases that are not in this catalogue"
_UNEXPECTED: Final = "not as expected"


@dataclass(frozen=True)
class Heading:
    """A column's heading.

    :param failed: whether its kernel gave no results.
    """

    label: str
    small: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Entry:
    """One cell of the table.

    :param id: of the trial that it leads to; empty where there is none.
    :param name: what was tried, and ``sought``, what it is found by.
    :param outcomes: what the filter calls it.
    """

    id: str
    name: str
    sought: str
    outcomes: str
    cell: Cell


@dataclass(frozen=True)
class Row:
    """A row of the table.

    :param title: of the case.
    :param fix: where the columns are kernels; else empty.
    :param span: over how many rows the name stands; 0 where it stands above.
    """

    name: str
    title: str
    fix: str
    span: int
    entries: tuple[Entry | None, ...]


@dataclass(frozen=True)
class Group:
    """Rows of a kind."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Told:
    """A trial, in full.

    :param told: the verdict in sentences.
    :param sequence: its diagram as SVG, and ``window`` likewise; empty where there is none.
    :param sources: what the others said besides the packets.
    :param walks: the rules that its packets met, where they were traced; else empty.
    :param text: its timeline.
    """

    id: str
    name: str
    place: str
    cell: Cell
    told: str
    sequence: str
    window: str
    sources: tuple[tuple[str, str], ...]
    walks: str
    text: str


@dataclass(frozen=True)
class _One:
    """One trial on one kernel, with what to call it."""

    id: str
    name: str
    trial: Trial
    cell: Cell


class Page:
    """A matrix as a page tells it.

    :param catalogue: what is known of the cases, by their names.
    :ivar sought: and ``counted``: what its filter finds, and what that is.
    """

    sought, counted = "case, fix, state", "trials"

    def __init__(self, matrix: Matrix, catalogue: Catalogue) -> None:
        self._matrix, self._catalogue = matrix, catalogue
        self.lab = matrix.lab
        self.answer: Remark
        self.answer, *self.remarks = remarks(matrix)
        self.preface = list(preface(matrix))
        self._names: dict[str, list[tuple[Trial, list[_One]]]] = {}
        numbers = itertools.count(1)
        for trial, name, row in cells.rows(matrix):
            ones = []
            for column, cell in zip(matrix.columns, row, strict=True):
                where = f", on Linux {column.name}" if len(matrix.columns) > 1 else ""
                its_id = f"t{next(numbers)}" if cell.result is not None else ""
                ones.append(_One(its_id, f"{name}, fix {trial.fix}{where}", trial, cell))
            self._names.setdefault(name, []).append((trial, ones))
        self._ones = [one for its in self._names.values() for _trial, ones in its for one in ones]
        self._drawn = self._draw()

    @property
    def title(self) -> str:
        """What the page is about, in a few words."""
        count, kernels = len(self._names), [column.name for column in self._matrix.columns]
        return f"{count} {'case' if count == 1 else 'cases'} on Linux {', '.join(kernels)}"

    @property
    def table_title(self) -> str:
        """What the table is of."""
        return f"Cases by {self._matrix.kinds}" if self.by_kernel else "Cases by fixes"

    @property
    def facts(self) -> Iterator[tuple[str, str]]:
        """What was tried where, and when, and by which command."""
        matrix, trials = self._matrix, [one.trial for one in self._ones]
        programs = [column.program for column in matrix.columns]
        versions = (trial.given or trial.program or find_release(trial.proxy_version).label for trial in trials)
        backends = (f"iptables-{trial.backend}" for trial in trials if trial.backend)
        topologies = (f"Service {trial.service}" if trial.given else trial.topology for trial in trials)
        times = [when for when in (matrix.when, *(one.report.when for one in matrix.columns if one.report)) if when]
        day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(max(times))) if times else ""
        values = {
            "kernel": (f"Linux {column.release or column.label}" for column in matrix.columns),
            "kube-proxy": programs if matrix.by_program else versions,
            "mode": (trial.proxy_mode for trial in trials),
            "backend": backends,
            "family": (trial.family for trial in trials),
            "topology": topologies,
            "date": [day],
            "again by": [matrix.command],
        }
        for name, its in values.items():
            if words := ", ".join(dict.fromkeys(filter(None, its))):
                yield name, words

    @property
    def by_kernel(self) -> bool:
        """Whether the columns are kernels."""
        return len(self._matrix.columns) > 1

    @property
    def headings(self) -> list[Heading]:
        """The columns: kernels, or fixes where there is one kernel."""
        columns = self._matrix.columns
        if not self.by_kernel and columns[0].report is not None:
            return [Heading(fix) for fix in self._fixes]
        labels = (Heading(column.label, column.release, column.report is None) for column in columns)
        return [Heading("fix"), *labels]

    @property
    def _fixes(self) -> list[str]:
        return list(dict.fromkeys(one.trial.fix for one in self._ones))

    @property
    def outcomes(self) -> list[str]:
        """What the table can be narrowed to."""
        words = sorted({one.cell.word for one in self._ones})
        return [*words, *([_UNEXPECTED] if any(one.cell.complaints for one in self._ones) else [])]

    @property
    def groups(self) -> list[Group]:
        """The rows of the table, by what the cases are about."""
        found: dict[str, list[Row]] = {}
        for name, its in self._names.items():
            group, title = self._catalogue.get(its[0][0].case, (_OTHERS if self._catalogue else "", ""))
            found.setdefault(group, []).extend(self._rows(name, title, its))
        order = list(dict.fromkeys(group for group, _title in self._catalogue.values()))
        ranked = sorted(found, key=lambda group: order.index(group) if group in order else len(order))
        return [Group(title, tuple(found[title])) for title in ranked]

    def _rows(self, name: str, title: str, its: Sequence[tuple[Trial, list[_One]]]) -> Iterator[Row]:
        if self.by_kernel:
            for index, (trial, ones) in enumerate(its):
                yield Row(name, title, trial.fix, 0 if index else len(its), tuple(map(_entry, ones)))
            return
        by_fix = {trial.fix: ones[0] for trial, ones in its}
        entries = (by_fix.get(fix) for fix in self._fixes)
        yield Row(name, title, "", 1, tuple(_entry(one) if one else None for one in entries))

    @property
    def trials(self) -> Iterator[Told]:
        """The trials that came to something, in the order of the table."""
        for one in self._ones:
            result = one.cell.result
            if result is None:
                continue
            verdict = result.verdict
            told = f"{one.cell.judgement}; {'; '.join(verdict.because)}."
            told += f" The kernel's words: {verdict.reason}" if verdict.reason else ""
            diagrams = self._drawn.get(one.id, ("", ""))
            said = tuple(sources(result)) if any(diagrams) else ()
            rules = "\n".join(line.plain.rstrip() for line in drawn(result.timeline.walks, full=True))
            text = timeline_text(result.timeline)
            yield Told(one.id, one.name, place(one.trial), one.cell, told, *diagrams, said, rules, text)

    @property
    def undrawn(self) -> str:
        """How many trials have no diagram, and how to get them; empty where all that can be drawn are."""
        had = [one for one in self._ones if one.cell.result is not None]
        kept = [one for one in had if one.cell.result and one.cell.result.timeline.sightings]
        words = []
        if left := sum(bool(one.cell.result and one.cell.result.timeline.left_out) for one in had):
            words.append(f"{left} of {len(had)} without their packets, which `--packets` would have kept in the file")
        if len(kept) > len(self._drawn):
            room = "there is room for so many: a page of fewer cases has them all"
            words.append(f"{len(self._drawn)} of {len(kept)} with their diagrams, for {room}")
        return f"{'; '.join(words).capitalize()}." if words else ""

    def _draw(self) -> dict[str, tuple[str, str]]:
        """Draw the trials that say most, as many as there is room for."""
        found: dict[str, tuple[str, str]] = {}
        room = ROOM
        for one in sorted(self._ones, key=_interest):
            result = one.cell.result
            if result is None or not result.timeline.sightings:
                continue
            pictures = _diagrams(one, result)
            room -= sum(map(len, pictures))
            if room < 0:
                break
            found[one.id] = pictures
        return found


def _diagrams(one: _One, result: Result) -> tuple[str, str]:
    because = "; ".join(result.verdict.because)
    packets = sequence(result.timeline, f"The packets of {one.name}", f"{one.cell.word}: {because}")
    return packets, window_diagram(result, f"Conntrack's window, and the packet of {one.name}")


def _interest(one: _One) -> tuple[bool, ...]:
    """Sort what wants explaining first, then the bug itself, then what does harm without a fix."""
    cell, trial = one.cell, one.trial
    return (
        not cell.complaints,
        trial.case != HEADLINE,
        not cell.turns,
        trial.fix != NO_FIX,
        cell.tone is not Tone.HARMFUL,
    )


def _entry(one: _One) -> Entry | None:
    if one.cell.kind is cells.Kind.NOTHING:
        return None
    outcomes = [one.cell.word, *([_UNEXPECTED] if one.cell.complaints else [])]
    return Entry(one.id, one.name, f"{one.name} {one.cell.judgement}", "|".join(outcomes), one.cell)
