"""The tests of the tests: a case fails where what it expects is turned round, or where its instruments are blind.

A run turns one of a case's checks round and blinds one of its instruments, by the seed; `LAB_FULL=1` all of them.
"""

import asyncio
import dataclasses
import itertools

import pytest

from lab.cases import CASES
from lab.conntrack.nflog import REASON_GROUP, WITNESS_GROUP, PacketLog
from lab.errors import LabError, MissingError
from lab.evidence.judgement import Judgement
from lab.fixes import NONE
from lab.netns import bound
from lab.results.result import Expectation
from lab.scenario import Scenario
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Family
from lab.wire.capture import Capture
from tests.support import cover

pytestmark = pytest.mark.lab_kernel

QUICK = [case for case in CASES.values() if not case.slow]
BLIND = ("client", "server", "witness", "reasons")
SOON = 0.1  # seconds; where nothing is to be seen, nobody needs to wait for it


@pytest.fixture(scope="module")
def answer():
    return asyncio.run(probe.ask(Family.IPV4))


@pytest.fixture(scope="module")
def results():
    """What came of each case, undisturbed."""
    return {}


def run(case, answer):
    topology = load(case.topology or "kube-proxy")
    try:
        return asyncio.run(runner.run(Setting(case, NONE, topology, Family.IPV4), answer))
    except MissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=QUICK, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture
def result(case, answer, results):
    if case.name not in results:
        results[case.name] = run(case, answer)
    assert results[case.name].as_expected, results[case.name].verdict
    return results[case.name]


def fails(case, answer):
    """Run a case again, disturbed; tell whether it says so, by its verdict or by an error."""
    try:
        return not run(case, answer).as_expected
    except LabError:
        return True


def test_no_other_expectation_would_do(result):
    everything = itertools.product((*Judgement, None), Outcome)
    good = [one for one in everything if dataclasses.replace(result, expected=Expectation(*one)).as_expected]
    assert good == [(result.expected.judgement, result.expected.outcome)]


def test_every_check_decides(case, result, answer, monkeypatch):
    expect = Scenario.expect
    for number, check in cover.some(list(enumerate(result.timeline.checks)), of=case.name):

        def inverted(scenario, words, holds, seen="", *, number=number):
            made = vars(scenario).setdefault("checks_made", itertools.count())  # a trial may be tried twice
            return expect(scenario, words, holds != (next(made) == number), seen)

        monkeypatch.setattr(Scenario, "expect", inverted)
        assert fails(case, answer), check


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(bound, "SECONDS", SOON)


def blinded(*instruments):
    """Return the cases with those of the instruments that a run blinds."""
    pairs = [(case, one) for case in QUICK for one in cover.some(BLIND, of=case.name) if one in instruments]
    return pytest.mark.parametrize(
        ("case", "blind"), pairs, indirect=["case"], ids=[f"{case.name}-{one}" for case, one in pairs]
    )


@blinded("client", "server")
def test_a_blind_capture_is_no_pass(case, blind, result, answer, monkeypatch, impatient):
    timeline = result.timeline  # of several servers the next trial may have another one
    hosts = {"client": {timeline.client}, "server": {timeline.server, *timeline.bystanders}}[blind]
    see = Capture.read
    monkeypatch.setattr(Capture, "read", lambda self: [one for one in see(self) if self.host not in hosts])
    assert fails(case, answer)


@blinded("witness")
def test_a_witness_that_says_nothing_is_no_pass(case, blind, result, answer, monkeypatch, impatient):
    read = PacketLog.read
    monkeypatch.setattr(
        PacketLog, "read", lambda self: [record for record in read(self) if record.group != WITNESS_GROUP]
    )
    assert fails(case, answer)


@blinded("reasons")
def test_reasons_that_never_come_are_no_pass_where_the_case_rests_on_them(case, blind, result, answer, monkeypatch):
    rests_on_them = result.verdict.judgement is Judgement.IGNORED or any(
        check.words.startswith("the kernel's reason") or Judgement.IGNORED in check.words
        for check in result.timeline.checks
    )
    read = PacketLog.read
    monkeypatch.setattr(
        PacketLog, "read", lambda self: [record for record in read(self) if record.group != REASON_GROUP]
    )
    assert fails(case, answer) == rests_on_them
