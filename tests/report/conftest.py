"""Results from a file, and what other kernels, nodes and machines could have given."""

import dataclasses
from pathlib import Path

import pytest

from lab.results.result import Expectation, Tally
from lab.results.saved import from_json

RESULTS = Path(__file__).parent / "results.json"  # `lab run beyond-window upstream-regression --json`, on Linux 6.18


@pytest.fixture(scope="module")
def report():
    return from_json(RESULTS.read_text())


def tally(report, case, fix):
    return next(one for one in report.tallies if (one.trial.case, one.trial.fix) == (case, fix))


def elsewhere(report, **where):
    """Return the report of the same trials in another place, or of other cases."""

    def moved(one):
        trial = dataclasses.replace(one.trial, **where)
        sample = dataclasses.replace(one.sample, trial=trial)
        return dataclasses.replace(one, trial=trial, sample=sample)

    return dataclasses.replace(report, tallies=tuple(map(moved, report.tallies)))


def only(report, case, *fixes):
    """Return the report of these trials alone; all fixes where none are named."""
    wanted = [one for one in report.tallies if one.trial.case == case and (not fixes or one.trial.fix in fixes)]
    return dataclasses.replace(report, tallies=tuple(wanted))


def with_outcomes(report, case, fix, *outcomes, disagreements=()):
    """Return the report where one trial was run anew and came out so, each time as expected unless witnesses differ."""
    before = tally(report, case, fix)
    counted = Tally(before.trial)
    for outcome in outcomes:
        verdict = dataclasses.replace(before.sample.verdict, outcome=outcome, disagreements=disagreements)
        expected = Expectation(verdict.judgement, outcome)
        counted = counted.and_then(dataclasses.replace(before.sample, verdict=verdict, expected=expected))
    tallies = (counted if one is before else one for one in report.tallies)
    return dataclasses.replace(report, tallies=tuple(tallies))


def joined(*reports):
    """Return one report with the trials of all."""
    return dataclasses.replace(reports[0], tallies=tuple(one for report in reports for one in report.tallies))
