# SPDX-License-Identifier: MIT
"""The same trials on several kernels, merged into one table. Plain data, the same on any machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lab.kubeproxy.releases import MINORS
from lab.results.places import OF_COLUMN, names
from lab.results.result import Report, Tally, Trial

NEWEST_VERSION: Final = MINORS[-1]  # in the place of each column's own


@dataclass(frozen=True)
class Column:
    """What came of the trials on one kernel.

    :param kernel: as it was asked for: a series such as ``6.1``, or a name such as ``newest``.
    :param release: as ``uname -r``; empty where it could not even be fetched.
    :param version: the upstream version that it was made from, such as ``6.1.192``; empty likewise.
    :param report: None where the kernel gave none.
    :param failure: why it gave none; empty where it did.
    :param console: the last lines of its console, where it gave none.
    :param seconds: from its start to its end.
    :param program: the kube-proxy program that wrote the rules, in a matrix with a column a program; else empty.
    """

    kernel: str
    release: str
    version: str
    report: Report | None = None
    failure: str = ""
    console: tuple[str, ...] = ()
    seconds: float = 0.0
    program: str = ""

    @property
    def label(self) -> str:
        """What to call it: its program, its series, or its version with the name that it was asked for by."""
        if self.program:
            return self.program
        if self.kernel[:1].isdigit() or not self.version:
            return self.kernel
        name = self.kernel.rpartition("/")[2]
        return f"{self.version} ({name})" if name else self.version

    @property
    def name(self) -> str:
        """What to call it in a sentence: its label, or its whole release where it is a report of its own."""
        return self.label if self.kernel else self.release

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


@dataclass(frozen=True)
class Matrix:
    """One table: trials by kernels.

    :param lab: the version of the lab that was run.
    :param columns: the kernels, the oldest first.
    :param when: it was found out, in seconds since the epoch; 0 where nobody knows.
    :param command: what repeats it; empty likewise.
    """

    lab: str
    columns: tuple[Column, ...]
    when: int = 0
    command: str = ""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The trials, in the order in which they were run; with a column a program, whichever that was."""
        reports = [column.report for column in self.columns]
        found = [{self._row(tally.trial): tally for tally in report.tallies} if report else {} for report in reports]
        trials = dict.fromkeys(itertools.chain.from_iterable(found))
        return tuple(Row(trial, tuple(tallies.get(trial) for tallies in found)) for trial in trials)

    def _row(self, trial: Trial) -> Trial:
        """Return a trial as all columns have it."""
        if not self.by_program:
            return trial
        return replace(trial, program=OF_COLUMN, proxy_version=NEWEST_VERSION, proxy_known=True)

    @property
    def kinds(self) -> str:
        """What the columns are, in a word."""
        return "kube-proxies" if self.by_program else "kernels"

    @property
    def by_program(self) -> bool:
        """Whether each column is a kube-proxy program, all on one kernel."""
        return any(column.program for column in self.columns)

    @property
    def names(self) -> dict[Trial, str]:
        """What to call each trial's case: with its place where the same case was tried in several."""
        return names(row.trial for row in self.rows)

    @property
    def good(self) -> bool:
        """True when every trial gave on every kernel what it is expected to give there."""
        return all(column.good for column in self.columns)


def merge(lab: str, columns: Iterable[Column]) -> Matrix:
    """Return one table of what several kernels gave, the oldest first.

    :param lab: the version of the lab that was run.
    """
    return Matrix(lab, tuple(sorted(columns, key=_age)))


def joined(shares: Sequence[Column], cases: Sequence[str]) -> Column:
    """Return the column of a kernel whose cases were shared out; where a share gave nothing, that is what counts.

    :param cases: in the order of the table.
    """
    reports = [column.report for column in shares if column.report is not None]
    if len(reports) < len(shares):
        return next(column for column in shares if column.report is None)
    tallies = [tally for report in reports for tally in report.tallies]
    tallies.sort(key=lambda tally: cases.index(tally.trial.case))
    report = replace(reports[0], tallies=tuple(tallies))
    return replace(shares[0], report=report, seconds=max(column.seconds for column in shares))


def alone(report: Report) -> Matrix:
    """Return the table of one report: a matrix with one kernel. It took what its trials took, one after the other."""
    seconds = sum(tally.seconds for tally in report.tallies)
    column = Column("", report.kernel, version(report.kernel), report, seconds=seconds)
    return Matrix(report.lab, (column,), report.when, report.command)


def side_by_side(reports: Sequence[tuple[str, Report]]) -> Matrix:
    """Return one table of what several kube-proxy programs gave on this kernel, in their order.

    :param reports: each with what to call its program.
    """
    columns = (replace(alone(report).columns[0], program=name) for name, report in reports)
    return Matrix(reports[0][1].lab, tuple(columns))


def version(release: str) -> str:
    """Return the version that a release begins with: ``6.18.44`` of ``6.18.44-cloud-amd64``."""
    number = re.match(r"\d+(\.\d+)*", release)
    return number[0] if number else release


def _age(column: Column) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", column.version or column.kernel)]
