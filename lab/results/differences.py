# SPDX-License-Identifier: MIT
"""What differs from one kernel to the next, told by what they did and not by their versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.results.matrix import Matrix, Row
from lab.results.places import called
from lab.results.result import Tally, Trial
from lab.vocabulary import Family


@dataclass(frozen=True)
class Deed:
    """What a kernel did in one trial, without what may be another number each time.

    :param facts: the judgement, and the outcome.
    :param findings: what else was found out.
    """

    facts: tuple[str, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Something that one kernel does otherwise than the one before it in the table, which may be years older.

    :param kernel: its label.
    :param before: the label of the nearest one before it that came to an answer.
    :param what: what it does.
    :param instead_of: what the one before it does.
    :param where: the trials in which it shows; empty where it is the kernel's way altogether.
    """

    kernel: str
    before: str
    what: str
    instead_of: str
    where: str = ""

    @property
    def sentence(self) -> str:
        """What differs, in a sentence."""
        where = f" in {self.where}" if self.where else ""
        return f"{self.kernel} differs from {self.before}{where}: {self.what} ({self.before}: {self.instead_of})."


def differences(matrix: Matrix) -> Iterator[Difference]:
    """Yield what each kernel does otherwise than the one before it: altogether, and then trial by trial."""
    rows, names = [(row, deeds(row), turns(row)) for row in matrix.rows], matrix.names
    for index, column in enumerate(matrix.columns):
        yield from _ways(matrix, index)
        found: dict[tuple[int, Deed, Deed], list[Trial]] = {}
        for row, its, turned in rows:
            before = turned[index]
            if before is not None and (then := its[before]) and (now := its[index]):
                found.setdefault((before, then, now), []).append(row.trial)
        for (before, then, now), trials in found.items():
            where = "; ".join(called(trials, names))
            yield Difference(column.label, matrix.columns[before].label, *_told(then, now), where)


def alike(matrix: Matrix) -> int:
    """Count the trials that gave the same on every kernel."""
    return sum(None not in its and len(set(its)) == 1 for its in map(deeds, matrix.rows))


def deeds(row: Row) -> tuple[Deed | None, ...]:
    """Return what each kernel did in a trial; None where it came to no end."""
    return tuple(_deed(tally) for tally in row.tallies)


def turns(row: Row) -> tuple[int | None, ...]:
    """Return for each column the nearest one before it that did something, where this one did something else."""
    found: list[int | None] = []
    its, before = deeds(row), None
    for index, deed in enumerate(its):
        found.append(before if before is not None and deed is not None and deed != its[before] else None)
        before = index if deed is not None else before
    return tuple(found)


def _ways(matrix: Matrix, index: int) -> Iterator[Difference]:
    """What a kernel makes of packets out of the window, where the one before it did otherwise."""
    now = matrix.columns[index]
    if now.report is None:
        return
    for family in Family:
        behaviour = now.report.behaviours.get(family)
        earlier = [
            (column.label, column.report.behaviours[family])
            for column in matrix.columns[:index]
            if column.report and family in column.report.behaviours
        ]
        if behaviour is not None and earlier and earlier[-1][1] is not behaviour:
            label, before = earlier[-1]
            yield Difference(now.label, label, behaviour.rule, before.rule)


def _deed(tally: Tally | None) -> Deed | None:
    if tally is None or tally.sample is None:
        return None
    verdict = tally.sample.verdict
    return Deed((verdict.judgement or "not judged", verdict.outcome), verdict.findings)


def _told(then: Deed, now: Deed) -> tuple[str, str]:
    """Return two deeds by what differs in them: now, and then."""
    facts = then.facts != now.facts

    def told(deed: Deed, other: Deed) -> str:
        own = [finding for finding in deed.findings if finding not in other.findings]
        return ", ".join((*(deed.facts if facts else ()), *own)) or "nothing of it"

    return told(now, then), told(then, now)
