"""Results of several files as one: by kernel, by program, and what changed between two."""

import dataclasses
from pathlib import Path

import pytest

from lab.results.changes import changes, same
from lab.results.gathered import gathered
from lab.results.matrix import Column, Matrix, merge, side_by_side
from lab.results.result import Report
from lab.results.saved import from_json

SAVED = Path(__file__).parents[1] / "report" / "results.json"


@pytest.fixture(scope="module")
def report():
    return from_json(SAVED.read_bytes())


def half(report, first):
    tallies = report.tallies[: len(report.tallies) // 2] if first else report.tallies[len(report.tallies) // 2 :]
    return dataclasses.replace(report, tallies=tallies)


def test_one_file_is_what_it_is(report):
    assert gathered([("a", report)]) is report


def test_parts_of_one_kernel_are_a_report(report):
    whole = gathered([("a", half(report, True)), ("b", half(report, False))])
    assert isinstance(whole, Report)
    assert whole.tallies == report.tallies


def test_a_matrix_takes_a_report_in_as_a_column(report):
    older = dataclasses.replace(report, kernel="5.10.1")
    matrix = merge(
        "0.1.0", [Column("5.10", "5.10.1", "5.10.1", older), Column("6.1", "6.1.2", "6.1.2", failure="hung")]
    )
    both = gathered([("m", matrix), ("r", report)])
    assert isinstance(both, Matrix)
    assert [column.label for column in both.columns] == ["5.10", "6.1", report.kernel]
    assert both.columns[1].failure == "hung"


def test_programs_of_one_kernel_stay_columns(report):
    programs = side_by_side([("one", half(report, True)), ("two", half(report, False))])
    older = dataclasses.replace(report, kernel="5.10.1")
    columns = gathered([("p", programs), ("o", older)]).columns
    assert sorted(column.program for column in columns) == ["", "one", "two"]


def test_kernels_are_compared_by_what_they_are_called(report):
    def matrix(*columns):
        return merge("0.1.0", [Column(name, f"{name}.1", f"{name}.1", its, failure) for name, its, failure in columns])

    before = matrix(("5.10", report, ""), ("6.1", report, ""), ("6.12", report, ""))
    after = matrix(("5.10", half(report, True), ""), ("6.1", None, "hung"), ("6.18", report, ""))
    told = list(changes(("a", before), ("b", after)))
    assert told[0].startswith("5.10: only in a: ")
    assert told[1:] == ["6.1: was tried, is hung", "only in a: Linux 6.12", "only in b: Linux 6.18"]
    assert same(before, after) == len(half(report, True).tallies)
    assert list(changes(("a", before), ("b", before))) == []
