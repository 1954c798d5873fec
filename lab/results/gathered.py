# SPDX-License-Identifier: MIT
"""Results from several files, of one machine or many, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.results.matrix import Column, alone, merge
from lab.results.result import Report, joined
from lab.results.saved import Found


def gathered(files: Sequence[tuple[str, Found]]) -> Found:
    """Return what several files hold as one: what is of the same kernel together, several kernels as a matrix.

    Where two files have the same trial on the same kernel, each has a column of its own.

    :param files: what to call each, and what it holds.
    """
    if len(files) == 1:
        return files[0][1]
    groups: dict[tuple[str, str], list[tuple[str, Column]]] = {}
    for name, found in files:
        for column in columns_of(found):
            groups.setdefault((column.release, column.program), []).append((name, column))
    columns = [column for its in groups.values() for column in _together(its)]
    labs = dict.fromkeys(found.lab for _name, found in files)
    if len(columns) == 1 and not columns[0].kernel and columns[0].report is not None:
        return columns[0].report
    return merge(", ".join(labs), columns)


def columns_of(found: Found) -> Sequence[Column]:
    """Return the kernels of results: a report has one."""
    return alone(found).columns if isinstance(found, Report) else found.columns


def _together(its: Sequence[tuple[str, Column]]) -> list[Column]:
    """Return what files have of one kernel in one column, or where they have the same trials in one each."""
    reports = [column.report for _name, column in its if column.report is not None]
    trials = [tally.trial for report in reports for tally in report.tallies]
    if len(its) == 1:
        return [its[0][1]]
    if len(reports) == len(its) and len(set(trials)) == len(trials):
        first = its[0][1]
        return [replace(first, report=joined(*reports), seconds=sum(column.seconds for _name, column in its))]
    return [replace(column, kernel=name) for name, column in its]
