"""Scripted peers on the kernel: they say what they are told, in its order, and nobody else says anything."""

import asyncio
import dataclasses

import pytest

from lab.cases import CASES
from lab.cases.demands import egress
from lab.errors import LabError
from lab.evidence.judgement import Judgement
from lab.evidence.sighting import LOCAL
from lab.fabric.lab import Lab
from lab.fixes import NONE
from lab.report.timeline import timeline_text
from lab.scenario import ScriptedScenario
from lab.scenario.roles import roles_in
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


def carry_out(script, family=Family.IPV4, topology="kube-proxy", roles=None):
    """Return the timeline of a script."""

    async def carried_out():
        place = load(topology) if isinstance(topology, str) else topology
        with Lab(place, family=family) as lab:
            scenario = ScriptedScenario(lab, roles or roles_in(place, family), family)
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


@pytest.mark.parametrize("family", list(Family))
def test_a_node_that_gets_what_it_cannot_translate_back_says_nothing_of_its_own(family):
    """Its stack would answer the data without ACK by a RST, as no socket of its own has that port."""
    place = load("kube-proxy")
    hosts = tuple(dataclasses.replace(host, masquerade_all=bool(host.proxy_mode)) for host in place.hosts)

    async def script(scenario):
        await scenario.handshake()
        scenario.server.send("P", payload=b"no ack")
        await scenario.expect_judgements(Judgement.INVALID)

    timeline = carry_out(script, family, dataclasses.replace(place, hosts=hosts))
    assert (timeline.faults, [check.holds for check in timeline.checks]) == ((), [True])
    assert sum(one.interface == LOCAL and one.packet.tcp is not None for one in timeline.sightings) == 1


def test_a_copy_of_a_frame_that_a_bridge_floods_is_not_taken_for_the_choice_of_the_rules():
    """Both servers' captures see the SYN, for the bridge has learned nothing yet; it is addressed to one of them."""

    async def script(scenario):
        scenario.lab.sync(scenario.lab.services, (second,))
        await scenario.handshake()

    place = load("bridge")
    slices = [one for one in place.endpoint_slices if one.address_type == "IPv4"]
    second = slices[0].model_copy(update={"endpoints": slices[0].endpoints[1:]})
    timeline = carry_out(script, topology="bridge")
    assert (timeline.refusal, timeline.server) == (None, "server-2")


def test_connections_from_several_ports_are_told_apart_where_a_node_masquerades():
    outside = load("uplink")

    async def script(scenario):
        rules = (
            "type nat hook postrouting priority srcnat\n"
            "oifname outside tcp dport 80 masquerade to :40000-40001\noifname outside masquerade\n"
        )
        scenario.load("node", f"table inet own {{\nchain postrouting {{\n{rules}}}\n}}\n")
        for port in (34567, 34568):
            scenario.begin(port)
            await scenario.handshake()
            scenario.expect_entry(state="ESTABLISHED")
            assert scenario.entry().original[0].port == port
        scenario.client.rst()
        await scenario.judged()
        scenario.expect_entry(state="CLOSE")
        sources = {one.packet.source for one in scenario.seen("outside", flags="S", outgoing=False)}
        assert {source.port for source in sources} == {40000, 40001}
        assert scenario.server.to in sources

    timeline = carry_out(script, topology="uplink", roles=egress(outside, Family.IPV4, port=80))
    assert (timeline.faults, [check.holds for check in timeline.checks]) == ((), [True] * 3)


def test_an_end_without_a_way_is_not_said_to_pass_a_node_by():
    async def script(scenario):
        scenario.client.syn()
        await scenario.judged()

    assert carry_out(script, topology="uplink", roles=egress(load("uplink"), Family.IPV4, port=80)).findings == ()


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


def test_a_change_of_an_entry_is_told_of_the_packet_that_made_it():
    setting = Setting(CASES["snat-port-in-time-wait"], NONE, load("uplink"), Family.IPV4)
    told = timeline_text(asyncio.run(runner.run(setting, asyncio.run(probe.ask(Family.IPV4)))).timeline)
    [first, lost, third] = [line for line in told.splitlines() if "client eth0 > node" in line and " SYN seq" in line]
    assert first.endswith("NEW, entry SYN_SENT")
    assert lost.endswith("NEW")  # it got none
    assert third.endswith(("NEW, entry SYN_SENT", "NEW"))  # up to Linux 6.4 none either


def test_what_is_ignored_changes_no_entry():
    async def script(scenario):
        scenario.client.syn()
        scenario.server.syn_ack(acknowledge=-1_000_000)
        scenario.server.begin(5_000_000)
        scenario.server.syn_ack()
        await scenario.judged()

    answers = [line for line in timeline_text(carry_out(script)).splitlines() if "server eth0 > node" in line]
    if " INVALID" in answers[0]:
        pytest.skip("this kernel ignores nothing late")
    assert answers[0].endswith(" ESTABLISHED")
    assert answers[1].endswith(" ESTABLISHED, entry SYN_RECV")


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
        setting = Setting(CASES[name], NONE, load(CASES[name].topology), Family.IPV4)
        return asyncio.run(runner.run(setting, answer)).verdict.findings

    several = (
        "port-reused-challenged",
        "port-reused-syn-twice",
        "stale-syn-ack",
        "stale-syn-ack-again",
        "reset-inexact",
    )
    for name in (*several, "reset-after-syn", "snat-port-in-time-wait", "snat-port-in-close"):
        assert len(found(name)) == 1
        assert found(name) == found(name)
