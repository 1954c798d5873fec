"""Words of evidence are made of evidence: each is said where it was seen, and not where something like it happened."""

import asyncio
import dataclasses

import pytest

from lab.cases.case import Case, Injection, always, on_every_kernel
from lab.evidence.judgement import Judgement
from lab.fixes import FIXES
from lab.netns import bound
from lab.report import forms
from lab.scenario import ConnectionScenario, ScriptedScenario
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import batch, probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome, packet
from lab.vocabulary import Backend, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel


class PacketAlone(ConnectionScenario):
    """A connection of which only what became of the judged packet decides."""

    decide = staticmethod(packet.decide)


async def healthy(scenario):
    await scenario.establish()
    await scenario.go_on()


@pytest.mark.parametrize("mode", list(ProxyMode))
def test_a_connection_with_nothing_to_judge_is_connected(mode):
    verdict = result_of(healthy, mode=mode).verdict
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.CONNECTED, None, ())
    assert verdict.because == ("all 5000 bytes of the stream arrived",)


def test_a_fin_in_its_place_leaks_nothing_and_nothing_is_said_to_leak():
    steps = Injection(lambda scenario: scenario.from_server(0, b"", flags="FA"))
    result = result_of(steps)
    verdict = result.verdict
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.KILLED, Judgement.ACCEPTED, ())
    assert verdict.because[0].startswith("FIN, ")
    assert not any("leak" in words for words in verdict.because)


def test_flags_that_no_stack_sends_leak_and_that_is_seen():
    """firewalld #961: FIN,PSH,URG without ACK is INVALID, and leaves the node as it came."""
    verdict = result_of(Injection(lambda scenario: scenario.from_server(0, b"", flags="FPU"))).verdict
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.LEAKED, Judgement.INVALID, ())
    assert verdict.because[0] == "came from 10.0.1.2"


OWN = "add table ip own\nadd chain ip own forward { type filter hook forward priority -5; }\n"


def test_a_drop_by_a_rule_of_nftables_that_is_nobodys_fix_is_put_down_to_it():
    rule = "add rule ip own forward tcp sport 80 tcp flags psh ip length < 100 counter drop\n"

    async def steps(scenario):
        await scenario.establish()
        scenario.load("node", OWN + rule)
        await scenario.inject(scenario.from_server(0, scenario.next_bytes(7)))

    verdict = result_of(steps, scenario=PacketAlone).verdict
    assert (verdict.outcome, verdict.judgement) == (Outcome.DROPPED, Judgement.ACCEPTED)
    assert verdict.because[0].startswith("ended at node: node: table ip own: tcp sport 80")
    assert verdict.because[0].endswith("counted 1")


@pytest.mark.parametrize("backend", list(Backend))
def test_a_drop_by_a_rule_of_iptables_that_is_nobodys_fix_is_put_down_to_it(backend):
    async def steps(scenario):
        await scenario.establish()
        rule = ("-p", "tcp", "--sport", "80", "--tcp-flags", "PSH", "PSH", "-m", "length", "--length", "0:99")
        scenario.node.run(f"iptables-{backend}", "-I", "FORWARD", "1", *rule, "-j", "DROP")
        await scenario.inject(scenario.from_server(0, scenario.next_bytes(7)))

    verdict = result_of(steps, scenario=PacketAlone, backend=backend).verdict
    assert (verdict.outcome, verdict.judgement) == (Outcome.DROPPED, Judgement.ACCEPTED)
    assert verdict.because[0].startswith("ended at node: node: -A FORWARD -p tcp")
    assert verdict.because[0].endswith("-j DROP counted 1")


@pytest.mark.parametrize(
    ("how", "refusal"),
    [("reject", "ECONNREFUSED"), ("reject with tcp reset", "ECONNREFUSED"), ("drop", "the SYN came")],
)
def test_a_rule_of_the_hosts_firewall_that_refuses_a_connection_is_named(how, refusal):
    """k0s #2117: what kube-proxy let through, the host's own firewall rejected, and nothing said who."""

    async def steps(scenario):
        scenario.load("node", OWN + f"add rule ip own forward tcp dport 80 counter {how}\n")
        await scenario.establish()

    verdict = result_of(steps).verdict
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.because[0].startswith(f"no connection: {refusal}")
    [rule] = [words for words in verdict.because if "table ip own" in words]
    assert rule.startswith("node: table ip own: tcp dport 80 counter")
    assert rule.endswith("counted 1")


def test_a_packet_that_no_rule_counted_is_not_said_to_be_dropped_by_one():
    async def steps(scenario):
        await scenario.establish()
        scenario.load("node", OWN + "add rule ip own forward tcp sport 80 tcp flags psh ip length < 100 drop\n")
        await scenario.inject(scenario.from_server(0, scenario.next_bytes(7)))

    verdict = result_of(steps, scenario=PacketAlone).verdict
    assert verdict.because[0] == "ended at node, and no rule that counts has dropped it"


@pytest.mark.parametrize("mode", list(ProxyMode))
def test_scripted_ends_answer_to_whom_a_masquerading_node_is(mode):
    async def steps(scenario):
        await scenario.handshake()
        scenario.judge(scenario.client.data(7))
        await scenario.judged()

    result = result_of(steps, masquerade=True, scenario=ScriptedScenario, mode=mode)
    verdict, timeline = result.verdict, result.timeline
    assert timeline.peer_address.address != timeline.client_address.address
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.DELIVERED, Judgement.ACCEPTED, ())


def test_a_syn_that_is_rightly_masqueraded_is_not_leaked():
    async def steps(scenario):
        syn = scenario.client.syn()
        await scenario.judged()
        assert scenario._find_server(syn)
        scenario.judge(syn)

    verdict = result_of(steps, masquerade=True, scenario=ScriptedScenario).verdict
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.DELIVERED, Judgement.NEW, ())


def test_a_syn_that_conntrack_lost_is_put_down_to_its_counter():
    async def steps(scenario):
        scenario.fill_table()
        await scenario.establish()

    result = result_of(steps)
    assert result.verdict.outcome is Outcome.REFUSED
    assert any(words.startswith("conntrack's counters: drop ") for words in result.verdict.because)


def test_what_ended_in_an_error_keeps_what_was_seen():
    from lab.scenario.recorder import UnseenError

    async def steps(scenario):
        await scenario.establish()
        raise UnseenError("waited in vain")

    setting = a_setting(steps)
    report = asyncio.run(batch.run([setting], Family.IPV4, 1))
    [tally] = report.tallies
    assert (tally.failure, tally.runs) == ("waited in vain", 0)
    assert not tally.good
    assert len([one for one in tally.sample.timeline.sightings if one.packet.tcp]) > 10
    assert "waited in vain" in tally.sample.verdict.disagreements
    printed = forms.write("md", report).decode()
    assert "not run" in printed
    assert "PSH,ACK seq 1 len 15" in printed


def test_a_bug_in_one_trial_keeps_its_traceback_and_loses_no_other(capsys):
    async def steps(scenario):
        await scenario.establish()
        _one, _two = iter([scenario])

    good = dataclasses.replace(a_setting(healthy), fix=FIXES["be-liberal"])
    report = asyncio.run(batch.run([a_setting(steps), good], Family.IPV4, 1))
    bad, other = report.tallies
    assert bad.failure.startswith("a fault of the lab's own: ValueError: not enough values")
    assert "PSH,ACK seq 1 len 15" in forms.write("md", report).decode()
    assert not bad.good
    assert other.good
    assert "Traceback" in capsys.readouterr().err


def test_a_connection_that_stands_still_is_stalled_and_no_error(monkeypatch):

    monkeypatch.setattr(bound, "SECONDS", 0.3)

    async def steps(scenario):
        await scenario.establish()
        scenario.load("node", OWN + "add rule ip own forward tcp dport 80 counter drop\n")
        await scenario.client_end.send(b"lost")
        await scenario.server_end.receive(1000)

    verdict = result_of(steps).verdict
    assert verdict.outcome is Outcome.STALLED
    assert verdict.because[0] == "server: the connection stood still for 0 s"


def a_setting(steps, *, scenario=ConnectionScenario, masquerade=False, mode=None, backend=None):
    topology = with_proxy(load("kube-proxy"), mode, None, backend)
    if masquerade:
        hosts = (dataclasses.replace(host, masquerade_all=True) if host.proxy_mode else host for host in topology.hosts)
        topology = dataclasses.replace(topology, hosts=tuple(hosts))
    case = Case(
        name="own",
        title="",
        story="",
        threads=(),
        scenario=scenario,
        steps=steps,
        expectations=on_every_kernel(always(None, Outcome.CONNECTED)),
    )
    return Setting(case, FIXES["none"], topology, Family.IPV4)


def result_of(steps, **more):
    async def once():
        return await runner.run(a_setting(steps, **more), await probe.ask(Family.IPV4))

    return asyncio.run(once())
