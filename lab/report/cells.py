"""What a cell of the table says, whatever the table is written in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab.differences import turns
from lab.matrix import Column, Matrix, Row
from lab.result import Result, Tally, Trial
from lab.verdict import Outcome


class Kind(StrEnum):
    """What there is to say of a trial on a kernel, in the words of JUnit where it has one."""

    PASSED = "passed"
    FAILURE = "failure"  # not as expected
    ERROR = "error"  # not run, for a fault
    SKIPPED = "skipped"  # not run, for what the kernel lacks
    NOTHING = "nothing"  # nobody tried


class Tone(StrEnum):
    """How a cell looks, by what became of the connection."""

    FINE = "fine"
    HARMLESS = "harmless"
    HARMFUL = "harmful"
    NOTHING = "nothing"


_TONES: Final = {
    Outcome.DELIVERED: Tone.FINE,
    Outcome.DROPPED: Tone.FINE,
    Outcome.LEAKED: Tone.HARMLESS,
    Outcome.RETRIED: Tone.HARMLESS,
}


@dataclass(frozen=True)
class Cell:
    """One trial on one kernel, in words.

    :param kind: whether it is as it should be.
    :param word: the outcome, or why there is none.
    :param judgement: conntrack's word on the packet; empty where there is none.
    :param turns: whether the kernel before this one did something else.
    :param complaints: what is wrong; empty where all is as expected.
    :param result: what it is made from, None where nothing came to its end.
    """

    kind: Kind
    word: str
    judgement: str
    tone: Tone
    turns: bool
    complaints: tuple[str, ...]
    result: Result | None


def rows(matrix: Matrix) -> Iterator[tuple[Trial, tuple[Cell, ...]]]:
    """Return the table, row by row."""
    for row in matrix.rows:
        yield row.trial, tuple(_cells(matrix, row))


def _cells(matrix: Matrix, row: Row) -> Iterator[Cell]:
    for column, tally, turn in zip(matrix.columns, row.tallies, turns(row), strict=True):
        yield _without(column) if tally is None else _cell(tally, turns=turn is not None)


def _without(column: Column) -> Cell:
    """Tell of a trial that a kernel did not come to: that is for complaint where it came to none."""
    if column.report is None:
        return Cell(Kind.ERROR, "not run", "", Tone.HARMFUL, False, (column.failure,), None)
    return Cell(Kind.NOTHING, "-", "", Tone.NOTHING, False, (), None)


def _cell(tally: Tally, *, turns: bool) -> Cell:
    result, complaints = tally.sample, []
    if result is not None:
        expected, verdict = result.expected, result.verdict
        if (verdict.judgement, verdict.outcome) != (expected.judgement, expected.outcome):
            complaints.append(f"not as expected: {expected.judgement or 'not judged'}, {expected.outcome}")
        complaints += verdict.disagreements
    if tally.runs > 1 and tally.as_expected < tally.runs:
        complaints.append(f"{tally.as_expected} of {tally.runs} as expected")
    if tally.failure:
        complaints.append(f"then not run: {tally.failure}" if result else tally.failure)
    if tally.missing:
        return Cell(Kind.SKIPPED, "not here", "", Tone.HARMLESS, False, (tally.missing,), None)
    if result is None:
        return Cell(Kind.ERROR, "not run", "", Tone.HARMFUL, turns, tuple(complaints), None)
    verdict = result.verdict
    tone = _TONES.get(verdict.outcome, Tone.HARMFUL)
    kind = Kind.FAILURE if complaints else Kind.PASSED
    return Cell(kind, verdict.outcome, verdict.judgement or "not judged", tone, turns, tuple(complaints), result)
