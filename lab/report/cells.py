# SPDX-License-Identifier: MIT
"""What a cell of the table says, whatever the table is written in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from lab.report.tone import Tone, tone_of
from lab.results.differences import turns
from lab.results.matrix import Column, Matrix, Row
from lab.results.result import Result, Tally, Trial


class Kind(StrEnum):
    """What there is to say of a trial on a kernel, in the words of JUnit where it has one."""

    PASSED = "passed"
    FAILURE = "failure"  # not as expected
    ERROR = "error"  # not run, for a fault
    SKIPPED = "skipped"  # not run, for what the kernel lacks
    NOTHING = "nothing"  # nobody tried


@dataclass(frozen=True)
class Cell:
    """One trial on one kernel, in words.

    :param kind: whether it is as it should be.
    :param word: the outcome, or why there is none.
    :param judgement: what conntrack made of the packet; empty where there is none.
    :param turns: whether the kernel before this one did something else.
    :param complaints: what is wrong; empty where all is as expected.
    :param result: what it is made from, None where nothing came to its end.
    :param runs: how often the same came; empty for a single run.
    :param seconds: what all runs took together.
    """

    kind: Kind
    word: str
    judgement: str
    tone: Tone
    turns: bool
    complaints: tuple[str, ...]
    result: Result | None
    runs: str = ""
    seconds: float = 0.0


def rows(matrix: Matrix) -> Iterator[tuple[Trial, str, tuple[Cell, ...]]]:
    """Return the table, row by row: the trial, what to call its case, and what came of it on each kernel."""
    names = matrix.names
    for row in matrix.rows:
        yield row.trial, names[row.trial], tuple(_cells(matrix, row))


def unexpected(matrix: Matrix) -> Iterator[tuple[str, Result]]:
    """Return what came of the trials that have something to explain, and left a timeline for it, by what to call it."""
    for trial, name, row in rows(matrix):
        for column, cell in zip(matrix.columns, row, strict=True):
            if cell.complaints and cell.result is not None:
                complaints = "; ".join(cell.complaints)
                yield f"{name}, fix {trial.fix}, on Linux {column.name}: {cell.word} ({complaints})", cell.result


def _cells(matrix: Matrix, row: Row) -> Iterator[Cell]:
    for column, tally, turn in zip(matrix.columns, row.tallies, turns(row), strict=True):
        yield _without(column) if tally is None else _cell(tally, turns=turn is not None)


def _without(column: Column) -> Cell:
    """Report of a trial that a kernel did not come to: that is for complaint where it came to none."""
    if column.report is None:
        return Cell(Kind.ERROR, "not run", "", Tone.HARMFUL, False, (column.failure,), None)
    return Cell(Kind.NOTHING, "-", "", Tone.NOTHING, False, (), None)


def _cell(tally: Tally, *, turns: bool) -> Cell:
    result, seconds = tally.sample, tally.seconds
    if result is None and tally.missing:
        return Cell(Kind.SKIPPED, "not here", "", Tone.HARMLESS, False, (tally.missing,), None, seconds=seconds)
    if result is None:
        return Cell(Kind.ERROR, "not run", "", Tone.HARMFUL, turns, (tally.failure,), None, seconds=seconds)
    complaints = tuple(_complaints(tally, result))
    outcome, word = result.verdict.outcome, result.verdict.judgement or "not judged"
    runs = f"{tally.runs:,} runs" if tally.runs > 1 else ""
    return Cell(_kind(tally), outcome, word, tone_of(outcome), turns, complaints, result, runs=runs, seconds=seconds)


def _kind(tally: Tally) -> Kind:
    if not tally.good:
        return Kind.FAILURE if tally.runs else Kind.ERROR
    return Kind.SKIPPED if tally.missing else Kind.PASSED


def _complaints(tally: Tally, result: Result) -> Iterator[str]:
    expected, verdict = result.expected, result.verdict
    if expected and (verdict.judgement, verdict.outcome) != (expected.judgement, expected.outcome):
        yield f"not as expected: {expected.judgement or 'not judged'}, {expected.outcome}"
    yield from verdict.disagreements
    if tally.runs > 1 and tally.as_expected < tally.runs:
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in tally.outcomes)
        yield f"{tally.as_expected} of {tally.runs} as expected ({outcomes})"
    if tally.failure:
        yield f"{'then ' if tally.runs else ''}not run: {tally.failure}"
    if tally.missing:
        yield f"then not here: {tally.missing}"
