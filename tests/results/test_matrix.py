"""Several kernels' results merged into one table, and what differs in it."""

import dataclasses
import itertools

import pytest

from lab.cases import CASES
from lab.report.closing import remarks
from lab.results import places
from lab.results.differences import alike, differences
from lab.results.matrix import Column, alone, joined, merge, side_by_side
from lab.results.result import Tally
from lab.results.saved import from_json, to_json
from lab.verdict import Outcome

from .conftest import tally, with_verdict

pytestmark = pytest.mark.lab_kernel


def sentences(matrix):
    return [difference.sentence for difference in differences(matrix)]


def test_columns_go_by_version_and_not_by_the_order_given(matrix):
    assert [column.label for column in matrix.columns] == ["5.10", "6.1", "7.3.1 (newest)"]


def test_a_kernel_that_could_not_be_fetched_keeps_its_place_and_its_name(matrix):
    columns = merge("0.1.0", [*matrix.columns, Column("6.12", "", "", failure="x"), Column("newest", "", "")]).columns
    assert [column.label for column in columns] == ["newest", "5.10", "6.1", "6.12", "7.3.1 (newest)"]


def test_rows_are_the_trials_in_the_order_in_which_they_were_run(matrix, report):
    assert [row.trial for row in matrix.rows] == [one.trial for one in report.tallies]
    assert all(
        row.tallies == tuple(tally(column.report, row.trial.case, row.trial.fix) for column in matrix.columns)
        for row in matrix.rows
    )


def test_a_trial_that_one_kernel_did_not_come_to_has_its_row_all_the_same(matrix):
    old, *others = matrix.columns
    less = dataclasses.replace(old, report=dataclasses.replace(old.report, tallies=old.report.tallies[1:]))
    rows = merge("0.1.0", [less, *others]).rows
    assert len(rows) == len(matrix.rows)
    assert [row.tallies[0] is None for row in rows].count(True) == 1
    assert all(None not in row.tallies[1:] for row in rows)


def test_json_is_the_whole_of_it(matrix, broken_matrix):
    assert from_json(to_json(matrix)) == matrix
    # What a console said comes back without what a terminal would obey.
    old, wrong, panicked, new = broken_matrix.columns
    console = tuple(line.replace("\x1b", "\ufffd").replace("\x00", "\ufffd") for line in panicked.console)
    assert console != panicked.console
    told = dataclasses.replace(panicked, console=console)
    assert from_json(to_json(broken_matrix)).columns == (old, wrong, told, new)


def test_what_differs_is_told_by_what_the_kernels_did(matrix):
    assert sentences(matrix) == [
        (
            "6.1 differs from 5.10: late packets are ignored, those far beyond the window are INVALID"
            " (5.10: every packet out of the window is INVALID)."
        ),
        "6.1 differs from 5.10 in upstream-regression with none: ignored, delivered (5.10: INVALID, reset).",
        "6.1 differs from 5.10 in upstream-regression with drop-forward: ignored, delivered (5.10: INVALID, dropped).",
    ]
    assert alike(matrix) == len(matrix.rows) - 2


def test_versions_alone_are_no_difference(lenient_report):
    columns = [Column(name, name, name, lenient_report) for name in ("5.10", "6.1")]
    assert sentences(merge("0.1.0", columns)) == []


def test_a_finding_is_a_difference_and_told_alone(matrix, lenient_report):
    old, new = (
        Column(number, number, number, with_verdict(lenient_report, "in-window", "none", findings=findings))
        for number, findings in (("6.1", ("both", "timeout of CLOSE")), ("6.12", ("both", "timeout of ESTABLISHED")))
    )
    assert sentences(merge("0.1.0", [new, old])) == [
        "6.12 differs from 6.1 in in-window with none: timeout of ESTABLISHED (6.1: timeout of CLOSE)."
    ]


def test_a_kernel_without_results_is_passed_over(matrix, broken_matrix):
    failed = Column("5.15", "5.15.1", "5.15.1", failure="hung")
    old, *others = matrix.columns
    assert sentences(merge("0.1.0", [old, failed, *others])) == sentences(matrix)
    # In-window stalled on 6.1; between that and the newest there is none that ran.
    difference = "7.3.1 (newest) differs from 6.1 in in-window with none: accepted, delivered (6.1: accepted, stalled)."
    assert difference in sentences(broken_matrix)


def test_cases_with_the_same_difference_are_named_together(lenient_report):
    changed = lenient_report
    for case, fix in itertools.product(("in-window", "beyond-window"), ("none", "be-liberal")):
        changed = with_verdict(changed, case, fix, outcome=Outcome.LOST, judgement=None)
    columns = [Column("6.1", "", "6.1", lenient_report), Column("6.2", "", "6.2", changed)]
    assert sentences(merge("0.1.0", columns)) == [
        "6.2 differs from 6.1 in beyond-window with none: not judged, lost (6.1: INVALID, reset).",
        (
            "6.2 differs from 6.1 in beyond-window with be-liberal; in-window with none or be-liberal: not judged, lost"
            " (6.1: accepted, delivered)."
        ),
    ]


def test_good_is_every_trial_on_every_kernel(matrix, broken_matrix, report):
    assert matrix.good
    assert alone(report).good
    assert not broken_matrix.good
    old, *others = matrix.columns
    assert not merge("0.1.0", [*others, dataclasses.replace(old, report=None, failure="hung")]).good
    trial = old.report.tallies[0].trial
    failed = dataclasses.replace(old.report, tallies=(Tally(trial, failure="x"), *old.report.tallies[1:]))
    assert not merge("0.1.0", [dataclasses.replace(old, report=failed), *others]).good


def test_no_boundary_is_claimed_that_nobody_looked_for(matrix, lenient_report):
    texts = [remark.text for remark in remarks(matrix)]
    assert not any(text.startswith("From ") for text in texts)
    assert (
        "Where two kernels differ, the change came somewhere between their versions; where, nobody looked for." in texts
    )
    same = merge("0.1.0", [Column(name, name, name, lenient_report) for name in ("5.10", "6.1")])
    assert not any("Where two kernels differ" in remark.text for remark in remarks(same))


def test_times_are_what_the_trials_took(report):
    assert all(0 < one.seconds < 10 for one in report.tallies)
    [column] = alone(report).columns
    assert column.seconds == pytest.approx(sum(one.seconds for one in report.tallies))
    once = report.tallies[0]
    assert once.and_took(2.0).seconds == once.seconds + 2.0
    assert once.and_then(once.sample).seconds == once.seconds


def test_one_report_is_a_matrix_with_one_kernel(report):
    [column] = alone(report).columns
    assert column.report == report
    assert column.release == report.kernel
    assert report.kernel.startswith(column.label)


def test_shares_are_joined_to_what_was_shared_out(report):
    from lab.kernels.on_kernel import Trials

    whole = Trials(tuple(dict.fromkeys(tally.trial.case for tally in report.tallies)), ("--fix=none",), 300, 512)
    shares = whole.shares(3)
    assert sorted(case for share in shares for case in share.cases) == sorted(whole.cases)
    assert {len(share.cases) for share in shares} == {1, 2}
    columns = [
        Column(
            "6.1",
            report.kernel,
            "6.1.192",
            dataclasses.replace(report, tallies=tuple(one for one in report.tallies if one.trial.case in share.cases)),
            seconds=10.0 + number,
        )
        for number, share in enumerate(shares)
    ]
    column = joined(columns, whole.cases)
    assert column.report == report
    assert column.seconds == 12.0
    assert whole.shares(99) == whole.shares(len(whole.cases))


def test_a_guest_has_time_for_as_many_trials_as_it_is_given():
    from lab.kernels.on_kernel import Trials

    one = Trials(("beyond-window",), (), None, 512)
    all_of_them = Trials(tuple(CASES), (), None, 512, per_case=3)
    assert one.seconds < all_of_them.seconds
    assert sum(share.seconds for share in all_of_them.shares(2)) > all_of_them.seconds  # each of them has to boot
    assert dataclasses.replace(all_of_them, limit=90).seconds == 90


def test_a_share_that_gave_nothing_is_what_counts(report):
    failed = Column("6.1", report.kernel, "6.1.192", failure="panicked: Oops", console=("Oops",), seconds=3.0)
    assert joined([Column("6.1", report.kernel, "6.1.192", report), failed], ("beyond-window",)) == failed


def test_programs_are_columns_in_the_order_given_and_share_their_rows(report, lenient_report):
    def by(program, version, one):
        tallies = tuple(
            dataclasses.replace(each, trial=dataclasses.replace(each.trial, program=program, proxy_version=version))
            for each in one.tallies
        )
        return dataclasses.replace(one, tallies=tallies)

    old, new = by("/old", "v1.20.2", report), by("/new", "v1.36.3", lenient_report)
    both = side_by_side([("/old", old), ("/new", new)])
    assert [column.label for column in both.columns] == ["/old", "/new"]
    assert [row.tallies for row in both.rows] == list(zip(old.tallies, new.tallies, strict=True))
    assert {places.node(row.trial) for row in both.rows} == {
        "each column's kube-proxy in iptables mode (iptables-nft, ipv4)"
    }
    assert "kube-proxy v1.20.2 by /old in iptables mode" in places.node(old.tallies[0].trial)
    said = [remark.text for remark in remarks(both)]
    assert any(text.endswith(f"of {len(both.rows)} trials gave the same with all 2 kube-proxies.") for text in said)
    assert from_json(to_json(both)) == both
