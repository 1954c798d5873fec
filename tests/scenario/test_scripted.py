"""Scripted peers on the kernel: they say what they are told, in its order, and nobody else says anything."""

import asyncio

import pytest

from lab.cases import CASES
from lab.errors import LabError
from lab.evidence.judgement import Judgement
from lab.fabric.lab import Lab
from lab.fixes import NONE
from lab.scenario import ScriptedScenario
from lab.scenario.roles import roles_in
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


def carry_out(script, family=Family.IPV4, topology="kube-proxy"):
    """Return the timeline of a script."""

    async def carried_out():
        place = load(topology)
        with Lab(place, family=family) as lab:
            scenario = ScriptedScenario(lab, roles_in(place, family), family)
            await script(scenario)
            return scenario.finish()

    return asyncio.run(carried_out())


@pytest.mark.parametrize("family", list(Family))
def test_nobody_speaks_but_the_script(family):
    async def script(scenario):
        await scenario.handshake()
        scenario.server.data(100)
        scenario.client.data(7, sequence=5000)
        await scenario.expect_judgements(Judgement.ACCEPTED, Judgement.ACCEPTED)

    timeline = carry_out(script, family)
    assert timeline.faults == ()
    assert [check.holds for check in timeline.checks] == [True]
    # Each of five segments at both ends of both links: an answer of any kernel would be one more.
    assert sum(sighting.packet.tcp is not None for sighting in timeline.sightings) == 5 * 4


def test_numbers_are_relative_to_both_sides_first():
    async def script(scenario):
        await scenario.handshake()
        scenario.client.begin(50)
        scenario.server.begin(70)
        segment = scenario.client.send("A", 5, 6)
        assert (segment.tcp.sequence, segment.tcp.acknowledgement) == (55, 76)
        assert scenario.server.syn().tcp.sequence == 70
        assert scenario.client.ack().tcp.acknowledgement == 71
        assert scenario.client.fin().tcp.sequence == 55
        assert scenario.client.ack().tcp.sequence == 56
        await scenario.judged()

    carry_out(script)


def test_the_server_that_the_rules_chose_is_the_one_that_answers():
    async def script(scenario):
        await scenario.handshake()

    servers = [carry_out(script, topology="endpoints").server for _ in range(12)]
    # Were the choice between the three even, all twelve would be the same 3 times in 3^12.
    assert len(set(servers)) > 1


def test_words_that_differ_are_a_check_that_does_not_hold():
    async def script(scenario):
        scenario.client.syn()
        await scenario.expect_judgements(Judgement.ACCEPTED)

    [check] = carry_out(script).checks
    assert (check.holds, check.seen) == (False, "NEW")


def test_the_process_is_free_again_afterwards():
    import os

    before = os.sched_getaffinity(0)

    async def script(scenario):
        assert len(os.sched_getaffinity(0)) == 1
        raise LabError("in the middle")

    with pytest.raises(LabError):
        carry_out(script)
    assert os.sched_getaffinity(0) == before


def test_findings_of_this_kernel():
    answer = asyncio.run(probe.ask(Family.IPV4))

    def found(name):
        setting = Setting(CASES[name], NONE, load("kube-proxy"), Family.IPV4)
        return asyncio.run(runner.run(setting, answer)).verdict.findings

    for name in ("port-reused-challenged", "port-reused-syn-twice", "stale-syn-ack", "reset-inexact"):
        assert len(found(name)) == 1
        assert found(name) == found(name)
