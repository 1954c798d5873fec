"""The same trials on several kernels, merged into one table. Plain data, the same on any machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lab.result import Report, Tally, Trial
from lab.words import Behaviour, Family


@dataclass(frozen=True)
class Column:
    """What came of the trials on one kernel.

    :param kernel: as it was asked for: a series such as ``6.1``, or a name such as ``newest``.
    :param release: as ``uname -r``; empty where it never came to light.
    :param report: None where the kernel gave none.
    :param failure: why it gave none; empty where it did.
    :param console: the last lines of its console, where it gave none.
    :param seconds: from its start to its end.
    """

    kernel: str
    release: str
    report: Report | None = None
    failure: str = ""
    console: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """What to call it in a table: its series, or the number of its release with the name it was asked for by."""
        number = re.match(r"\d+(\.\d+)*", self.release)
        if self.kernel[:1].isdigit() or number is None:
            return self.kernel
        return f"{number[0]} ({self.kernel})" if self.kernel else number[0]

    @property
    def good(self) -> bool:
        """True when every trial gave what this kernel is expected to give."""
        return self.report is not None and self.report.good


@dataclass(frozen=True)
class Row:
    """One trial on every kernel.

    :param tallies: one for each column; None where that kernel did not come to it.
    """

    trial: Trial
    tallies: tuple[Tally | None, ...]

    @property
    def deeds(self) -> tuple[Deed | None, ...]:
        """What each kernel did; None where it did nothing."""
        return tuple(_deed(tally) for tally in self.tallies)

    @property
    def turns(self) -> tuple[int | None, ...]:
        """For each column, the nearest one before it that did something, where this one did something else."""
        deeds = self.deeds
        turns: list[int | None] = []
        before = None
        for index, deed in enumerate(deeds):
            turns.append(before if before is not None and deed is not None and deed != deeds[before] else None)
            before = index if deed is not None else before
        return tuple(turns)


@dataclass(frozen=True)
class Deed:
    """What a kernel did in one trial, without what may be another number each time.

    :param facts: conntrack's word, and the outcome.
    :param findings: what else was found out.
    """

    facts: tuple[str, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Something that one kernel does otherwise than the one before it.

    :param since: the label of the first one to do it.
    :param before: the label of the last one to do otherwise.
    :param what: what is done since.
    :param instead_of: what was done before.
    :param trials: where it shows; empty where it is the kernel's way altogether.
    """

    since: str
    before: str
    what: str
    instead_of: str
    trials: tuple[Trial, ...] = ()

    @property
    def sentence(self) -> str:
        """Tell it."""
        where = f", {'; '.join(places(self.trials))}" if self.trials else ""
        return f"From {self.since} on{where}: {self.what} ({self.before}: {self.instead_of})."


@dataclass(frozen=True)
class Matrix:
    """One table: trials by kernels.

    :param lab: the version of the lab that was run.
    :param columns: the kernels, the oldest first.
    """

    lab: str
    columns: tuple[Column, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The trials, in the order in which they were run."""
        reports = [column.report for column in self.columns]
        found = [{tally.trial: tally for tally in report.tallies} if report else {} for report in reports]
        trials = dict.fromkeys(itertools.chain.from_iterable(found))
        return tuple(Row(trial, tuple(tallies.get(trial) for tallies in found)) for trial in trials)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What differs from one kernel to the next, told by what they did."""
        ways = [self._ways(index) for index in range(len(self.columns))]
        deeds = self._deeds()
        return tuple(itertools.chain.from_iterable(itertools.chain(*pair) for pair in zip(ways, deeds, strict=True)))

    @property
    def alike(self) -> int:
        """How many trials gave the same on every kernel."""
        return sum(None not in row.deeds and len(set(row.deeds)) == 1 for row in self.rows)

    @property
    def good(self) -> bool:
        """True when every trial gave on every kernel what it is expected to give there."""
        return bool(self.columns) and all(column.good for column in self.columns)

    def _ways(self, index: int) -> Iterator[Difference]:
        """What a column's kernel makes of packets out of the window, where the one before it did otherwise."""
        for family in Family:
            now = self._behaviour(index, family)
            earlier = [other for other in range(index) if self._behaviour(other, family) is not None]
            before = self._behaviour(earlier[-1], family) if earlier else None
            if now is not None and before is not None and now is not before:
                yield Difference(self.columns[index].label, self.columns[earlier[-1]].label, now.rule, before.rule)

    def _behaviour(self, index: int, family: Family) -> Behaviour | None:
        report = self.columns[index].report
        return report.behaviours.get(family) if report else None

    def _deeds(self) -> list[list[Difference]]:
        """What was done otherwise in trials, by column, with all trials where it is the same difference together."""
        found: list[dict[tuple[int, Deed, Deed], list[Trial]]] = [{} for _column in self.columns]
        for row in self.rows:
            deeds = row.deeds
            for index, before in enumerate(row.turns):
                if before is not None and (now := deeds[index]) and (then := deeds[before]):
                    found[index].setdefault((before, then, now), []).append(row.trial)
        return [
            [
                Difference(self.columns[index].label, self.columns[before].label, *_told(then, now), tuple(trials))
                for (before, then, now), trials in differences.items()
            ]
            for index, differences in enumerate(found)
        ]


def merge(lab: str, columns: Iterable[Column]) -> Matrix:
    """Return one table of what several kernels gave, the oldest first.

    :param lab: the version of the lab that was run.
    """
    return Matrix(lab, tuple(sorted(columns, key=_age)))


def to_json(matrix: Matrix) -> str:
    """Return the matrix as JSON."""
    from pydantic import TypeAdapter

    return TypeAdapter(Matrix).dump_json(matrix).decode()


def from_json(text: str) -> Matrix:
    """Return the matrix that :func:`to_json` wrote.

    :raises ValueError: the text is no such matrix.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(Matrix).validate_json(text)


def _age(column: Column) -> tuple[bool, list[int]]:
    numbers = re.match(r"\d+(\.\d+)*", column.release or column.kernel)
    return numbers is None, [int(number) for number in numbers[0].split(".")] if numbers else []


def _deed(tally: Tally | None) -> Deed | None:
    if tally is None or tally.sample is None:
        return None
    verdict = tally.sample.verdict
    return Deed((verdict.judgement or "not judged", verdict.outcome), verdict.findings)


def _told(then: Deed, now: Deed) -> tuple[str, str]:
    """Tell two deeds by what differs in them: now, and then."""
    facts = then.facts != now.facts

    def told(deed: Deed, other: Deed) -> str:
        own = [finding for finding in deed.findings if finding not in other.findings]
        return ", ".join((*(deed.facts if facts else ()), *own)) or "nothing of it"

    return told(now, then), told(then, now)


def places(trials: Iterable[Trial]) -> Iterator[str]:
    """Name trials: cases together that have the same fixes."""
    fixes: dict[str, list[str]] = {}
    for trial in trials:
        fixes.setdefault(trial.case, []).append(trial.fix)
    cases: dict[tuple[str, ...], list[str]] = {}
    for case, its in fixes.items():
        cases.setdefault(tuple(its), []).append(case)
    for its, names in cases.items():
        yield f"{', '.join(names)} with {' or '.join(its)}"
