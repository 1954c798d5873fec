"""A client that begins again hides the reset; what that costs is the same each time."""

import asyncio
import dataclasses

import pytest

from lab.cases import CASES
from lab.evidence.timeline import Try
from lab.fixes import BE_LIBERAL, DROP_FORWARD, NONE
from lab.report.timeline import timeline_text
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.verdict.retrying import cost, decide, round_trips
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


def run(fix, topology="kube-proxy"):
    answer = asyncio.run(probe.ask(Family.IPV4))
    return asyncio.run(runner.run(Setting(CASES["retried"], fix, load(topology), Family.IPV4), answer))


@pytest.fixture(scope="module")
def retried():
    return run(NONE)


def test_a_fifth_is_sent_twice_and_three_round_trips_are_lost(retried):
    assert retried.as_expected
    assert retried.verdict.outcome is Outcome.RETRIED
    assert retried.timeline.tries == (Try("ECONNRESET", 1000, 1000, True), Try(None, 5000, 5000, True))
    assert cost(retried.timeline) == (
        "6,000 bytes sent for 5,000",
        "5 round trips until the last came",
        "2 connections",
        "ECONNRESET after 1,000 bytes",
    )


@pytest.mark.parametrize("fix", [DROP_FORWARD, BE_LIBERAL], ids=lambda fix: fix.name)
def test_with_a_fix_one_connection_is_enough(fix):
    result = run(fix)
    assert result.as_expected
    assert [one.error for one in result.timeline.tries] == [None]
    assert round_trips(result.timeline) == 2
    assert "5,000 bytes sent for 5,000" in result.verdict.because


def test_the_second_connection_may_go_to_another_server():
    results = [run(NONE, "endpoints") for _ in range(12)]
    assert all(result.as_expected for result in results)


def test_a_second_try_that_fails_as_well_is_a_reset(retried):
    def with_second(second):
        return dataclasses.replace(retried.timeline, tries=(retried.timeline.tries[0], second))

    for second in (Try("ECONNRESET", 5000, 4000, True), Try(None, 4000, 4000, True)):
        assert decide(with_second(second)).outcome is Outcome.RESET
    assert decide(dataclasses.replace(retried.timeline, tries=retried.timeline.tries[:1])).outcome is Outcome.RESET
    wrong = decide(with_second(Try(None, 5000, 5000, False)))
    assert "a client received bytes that were not sent" in wrong.disagreements


def test_both_connections_are_drawn_from_their_own_first_numbers(retried):
    text = timeline_text(retried.timeline)
    assert text.count("SYN seq 0  NEW") == 2
    assert "10.0.0.2:34568 > 192.168.0.2:80  ACK seq 16 ack 5001" in text
    assert "6,000 bytes sent for 5,000, 5 round trips until the last came" in text
