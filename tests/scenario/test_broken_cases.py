"""Tests of the tests: each case, broken once, is not as expected."""

import asyncio
import dataclasses

import pytest

from lab.cases import dns_race, snat_port_race, stale_udp_entry, syn_before_service, table_full, udp_before_service
from lab.cases.case import on_every_kernel
from lab.conntrack.fill import Filler
from lab.evidence.judgement import Judgement
from lab.fixes import NONE
from lab.results.result import Expectation
from lab.scenario.base import Scenario
from lab.scenario.datagrams import DatagramsScenario
from lab.topology.reader import load
from lab.trial import runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family
from lab.wire.capture import Capture

pytestmark = pytest.mark.lab_kernel


def run(case):
    topology = load(case.topology or "kube-proxy")
    return asyncio.run(runner.run(Setting(case, NONE, topology, Family.IPV4), Behaviour.IGNORES_LATE))


def nothing(*_arguments, **_options):
    return None


def test_an_endpoint_that_is_still_there_answers(monkeypatch):
    monkeypatch.setattr(DatagramsScenario, "end_server", nothing)
    result = run(stale_udp_entry.KEPT)
    assert result.verdict.outcome is Outcome.DELIVERED
    assert not result.as_expected


@pytest.mark.parametrize("case", [udp_before_service.KEPT, stale_udp_entry.KEPT], ids=lambda case: case.name)
def test_an_entry_that_is_gone_stands_in_nobodys_way(case, monkeypatch):
    look = DatagramsScenario.expect_entry

    def forget(scenario, **wanted):
        look(scenario, **wanted)
        scenario.forget_entry()

    monkeypatch.setattr(DatagramsScenario, "expect_entry", forget)
    result = run(case)
    assert result.verdict.outcome is Outcome.DELIVERED
    assert not result.as_expected


def test_a_syn_entry_that_stays_is_seen(monkeypatch):
    monkeypatch.setattr(Scenario, "forget_entry", nothing)
    assert run(syn_before_service.FORGOTTEN).verdict.outcome is Outcome.REFUSED


def test_without_masquerading_there_is_no_race(monkeypatch):
    monkeypatch.setattr(snat_port_race, "masquerade", nothing)
    result = run(snat_port_race.PLAIN)
    assert result.verdict.outcome is Outcome.DELIVERED
    assert not result.as_expected


def test_questions_that_do_not_race_do_not_clash(monkeypatch):
    released = DatagramsScenario.release

    def first_goes_alone(scenario, second, first):
        released(scenario, second)
        scenario.flush_entries()
        released(scenario, first)

    monkeypatch.setattr(DatagramsScenario, "release", first_goes_alone)
    result = run(dns_race.TWO_ENDPOINTS)
    assert "expected clash_resolve counted 1, but it is 0" in result.verdict.disagreements


def test_a_blind_capture_is_no_pass(monkeypatch):
    see = Capture.read
    monkeypatch.setattr(Capture, "read", lambda self: [] if self.host == "dns-1" else see(self))
    result = run(stale_udp_entry.CLEANED)
    assert "the capture on dns-1 missed the barrier datagram" in result.verdict.disagreements


def test_another_expectation_is_not_met():
    wrong = Expectation(Judgement.NEW, Outcome.LOST)
    case = dataclasses.replace(snat_port_race.RANDOM, expectations=on_every_kernel(lambda protection: wrong))
    assert not run(case).as_expected


@pytest.mark.parametrize("case", [table_full.NEW_CONNECTION, table_full.EARLY_DROP], ids=lambda case: case.name)
def test_a_table_with_room_is_no_full_one(case, monkeypatch):
    monkeypatch.setattr(Filler, "fill", nothing)
    assert not run(case).as_expected
