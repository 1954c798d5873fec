"""What a matrix means, in sentences: whom the bug hits, what differs between kernels, and what was not found out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lab.differences import alike, differences, places
from lab.matrix import Column, Matrix
from lab.report.cells import Tone
from lab.report.terminal import HEADLINE, NO_FIX
from lab.result import Trial
from lab.verdict import Outcome

_LIVES: Final = (Outcome.DROPPED, Outcome.DELIVERED)


@dataclass(frozen=True)
class Remark:
    """One sentence below the table.

    :param console: what a guest's console said last, to be shown with it.
    """

    text: str
    tone: Tone
    console: tuple[str, ...] = ()


def remarks(matrix: Matrix) -> Iterator[Remark]:
    """Say what a matrix means: the answer first, then what differs, then what is missing."""
    yield from _affected(matrix)
    yield from _differences(matrix)
    for column in matrix.columns:
        yield from _not_run(column)
    yield _last_words(matrix)


def _affected(matrix: Matrix) -> Iterator[Remark]:
    """Say on which kernels one packet resets a connection, and which fixes prevent it."""
    answers: dict[tuple[str, Tone], list[str]] = {}
    for column in matrix.columns:
        tallies = column.report.tallies if column.report else ()
        outcomes = {
            tally.trial.fix: tally.sample.verdict.outcome
            for tally in tallies
            if tally.trial.case == HEADLINE and tally.sample
        }
        if outcomes.get(NO_FIX) is Outcome.RESET:
            helps = [fix for fix, outcome in outcomes.items() if outcome in _LIVES]
            cure = f"{' or '.join(helps)} prevents it" if helps else "no fix that was tried prevents it"
            answer = f"AFFECTED: {{}}: one packet resets a healthy connection; {cure}.", Tone.HARMFUL
        elif outcomes.get(NO_FIX) in _LIVES:
            answer = "NOT AFFECTED: {}: the connection stays alive.", Tone.FINE
        else:
            continue
        answers.setdefault(answer, []).append(column.label)
    for (sentence, tone), labels in answers.items():
        yield Remark(sentence.format(f"Linux {_listed(labels)}"), tone)


def _differences(matrix: Matrix) -> Iterator[Remark]:
    for difference in differences(matrix):
        yield Remark(difference.sentence, Tone.NOTHING)
    ran = sum(column.report is not None for column in matrix.columns)
    if ran == len(matrix.columns) > 1:
        yield Remark(f"{alike(matrix)} of {len(matrix.rows)} trials gave the same on all {ran} kernels.", Tone.NOTHING)


def _not_run(column: Column) -> Iterator[Remark]:
    if column.report is None:
        release = f", Linux {column.release}," if column.release else ""
        yield Remark(f"{column.label}{release} gave no results: {column.failure}", Tone.HARMFUL, column.console)
        return
    reasons: dict[tuple[str, Tone], list[Trial]] = {}
    for tally in column.report.tallies:
        if tally.missing:
            reasons.setdefault((tally.missing, Tone.HARMLESS), []).append(tally.trial)
        elif tally.failure:
            reasons.setdefault((tally.failure, Tone.HARMFUL), []).append(tally.trial)
    for (reason, tone), trials in reasons.items():
        yield Remark(f"{column.label}: not run: {'; '.join(places(trials))}: {reason}", tone)


def _last_words(matrix: Matrix) -> Remark:
    reports = [column.report for column in matrix.columns]
    had = [tally for report in reports if report for tally in report.tallies if not tally.missing]
    bad = sum(not tally.good for tally in had)
    without = sum(report is None or not any(tally.runs for tally in report.tallies) for report in reports)
    if not bad and not without:
        return Remark(f"{len(had)} of {len(had)} trials gave what their kernel is expected to give.", Tone.FINE)
    parts = [f"{bad} of {len(had)} trials did not give what their kernel is expected to give"] if bad else []
    if without:
        parts.append(f"{without} of {len(reports)} kernels gave no results")
    return Remark(f"{', and '.join(parts)}.", Tone.HARMFUL)


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
