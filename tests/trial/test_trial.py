"""The road itself, on the kernel: every case with every fix, in both families, both modes and both backends.

Of that product a run takes a cover: every case with every fix once, each in another mode, backend and family, and each
case and each fix in all of them. `LAB_FULL=1` takes the whole.
"""

import asyncio
import dataclasses
import itertools
import os

import pytest

from lab.cases import CASES, DEFAULT_CASES, HEADLINE, service_cidr_late
from lab.cases.case import on_every_kernel
from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.sighting import LOCAL
from lab.fixes import BE_LIBERAL, DEFAULT_FIXES, DROP_FORWARD, FIXES, NONE
from lab.report.timeline import timeline_text
from lab.results.result import Expectation, Report, Tally
from lab.results.saved import from_json, to_json
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.fix_file import find_fix
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.verdict.connection import resets
from lab.verdict.packet import leaked
from lab.vocabulary import Backend, Behaviour, Family, ProxyMode
from tests.support import cover
from tests.support.families import OF_IPV4

pytestmark = pytest.mark.lab_kernel

KINDS = {
    "iptables-nft": (ProxyMode.IPTABLES, None, Backend.NFT),
    "iptables-legacy": (ProxyMode.IPTABLES, None, Backend.LEGACY),
    "nftables": (ProxyMode.NFTABLES, None, None),
    "nftables-v1.36": (ProxyMode.NFTABLES, "v1.36", None),
}

#: Which kinds of nodes cases need, that need any.
OF_A_MODE = dict.fromkeys((case.name for case in service_cidr_late.CASES), "nftables")


@pytest.fixture(scope="module")
def answers():
    """What the kernel does, asked before any test breaks the lab."""
    return {family: asyncio.run(probe.ask(family)) for family in Family}


def run(case, fix, family, answer, kind="iptables-nft"):
    topology = with_proxy(load(case.topology or "kube-proxy"), *KINDS[kind])
    return asyncio.run(runner.run(Setting(case, fix, topology, family), answer))


QUICK = [case for case in CASES.values() if not case.slow]  # the others: test_load.py
EVERYWHERE = list(itertools.product(KINDS, Family))


def places(case):
    """Return where a case may be tried: a kind of nodes and a family."""
    return [
        (kind, family)
        for kind, family in EVERYWHERE
        if kind.startswith(OF_A_MODE.get(case.name, "")) and not (family is Family.IPV6 and case.name in OF_IPV4)
    ]


def name(value):
    return "-".join(value) if isinstance(value, tuple) else value.name


@pytest.mark.parametrize(("case", "fix", "place"), cover.pairs(QUICK, list(FIXES.values()), places), ids=name)
def test_every_case_with_every_fix_gives_what_this_kernel_is_expected_to_give(case, fix, place, answers):
    kind, family = place
    check(case, fix, kind, family, answers)


@pytest.mark.parametrize(("kind", "family"), EVERYWHERE, ids=str)
@pytest.mark.parametrize("fix", DEFAULT_FIXES, ids=name)
@pytest.mark.parametrize("case", DEFAULT_CASES, ids=name)
def test_so_does_every_default_trial_everywhere(case, fix, kind, family, answers):
    check(case, fix, kind, family, answers)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("nftables")])
@pytest.mark.parametrize("case", OF_A_MODE)
def test_a_case_of_nftables_mode_is_refused_elsewhere(case, kind, answers):
    with pytest.raises(InputError, match="it needs node in nftables mode of"):
        run(CASES[case], NONE, Family.IPV4, answers[Family.IPV4], kind)


SLOW = [case for case in CASES.values() if case.slow]


@pytest.mark.skipif(not os.environ.get("LAB_SLOW"), reason="takes minutes: set LAB_SLOW=1")
@pytest.mark.parametrize(("kind", "family"), EVERYWHERE if os.environ.get("LAB_SLOW") else EVERYWHERE[:1], ids=str)
@pytest.mark.parametrize("fix", DEFAULT_FIXES, ids=name)
@pytest.mark.parametrize("case", SLOW, ids=name)
def test_so_do_the_slow_cases(case, fix, kind, family, answers):
    check(case, fix, kind, family, answers)


def check(case, fix, kind, family, answers):
    result = run(case, fix, family, answers[family], kind)
    assert result.verdict.disagreements == ()
    assert (result.verdict.judgement, result.verdict.outcome) == (
        result.expected.judgement,
        result.expected.outcome,
    )
    assert result.as_expected


def test_the_figure_is_in_the_headlines_timeline(answers):
    timeline = run(HEADLINE, NONE, Family.IPV4, answers[Family.IPV4]).timeline
    seen = {(s.host, s.interface, str(s.packet.source), str(s.packet.destination)) for s in timeline.sightings}
    assert ("client", "eth0", "10.0.0.2:34567", "192.168.0.2:80") in seen  # (1)
    assert ("server", "eth0", "10.0.0.2:34567", "10.0.1.2:80") in seen  # (2)
    leak = leaked(timeline)
    assert (str(leak.packet.source), str(leak.packet.destination)) == (
        "10.0.1.2:80",
        "10.0.0.2:34567",
    )  # (3), (4)
    [reset] = resets(timeline)
    assert (str(reset.packet.source), str(reset.packet.destination)) == (
        "10.0.0.2:34567",
        "10.0.1.2:80",
    )  # (5)
    assert reset.packet.tcp.sequence == timeline.injected.packet.tcp.acknowledgement
    assert reset.time > leak.time
    assert timeline.end_of("server").error == "ECONNRESET"
    assert timeline.end_of("client").error == "ECONNRESET"
    assert timeline.counters.statistics["invalid"] == timeline.counters.states["invalid"] == 2


def test_the_kernel_gives_its_reason(answers):
    verdict = run(HEADLINE, NONE, Family.IPV4, answers[Family.IPV4]).verdict
    assert verdict.reason.startswith("SEQ is over")


def test_the_drop_is_counted_by_the_rule_itself(answers):
    for kind in KINDS:
        result = run(HEADLINE, DROP_FORWARD, Family.IPV4, answers[Family.IPV4], kind)
        assert result.timeline.counters.dropped == 1
    assert run(HEADLINE, BE_LIBERAL, Family.IPV4, answers[Family.IPV4]).timeline.counters.dropped is None


def test_the_entry_passes_through_its_states(answers):
    timeline = run(HEADLINE, NONE, Family.IPV4, answers[Family.IPV4]).timeline
    states = [event.entry.tcp_state for event in timeline.entry_events if event.entry.tcp_state]
    assert states[:3] == ["SYN_SENT", "SYN_RECV", "ESTABLISHED"]
    assert timeline.entry.original == (timeline.client_address, timeline.target)
    assert timeline.entry.reply == (timeline.server_address, timeline.client_address)


@pytest.mark.parametrize(
    ("version", "outcome"), [("v1.14", Outcome.RESET), ("v1.15", Outcome.DROPPED), ("v1.31", Outcome.DROPPED)]
)
def test_a_version_with_the_rule_needs_no_fix(version, outcome, answers):
    topology = with_proxy(load("kube-proxy"), None, version, None)
    result = asyncio.run(runner.run(Setting(HEADLINE, NONE, topology, Family.IPV4), answers[Family.IPV4]))
    assert result.verdict.outcome is outcome
    assert result.as_expected


@pytest.mark.parametrize("family", list(Family))
def test_whichever_endpoint_the_rules_choose_is_asked(family, answers):
    answer = answers[family]
    setting = Setting(HEADLINE, NONE, load("endpoints"), family)
    results = [asyncio.run(runner.run(setting, answer)) for _ in range(12)]
    assert all(result.as_expected for result in results)
    # Were the choice between the three even, all twelve would be the same 3 times in 3^12.
    assert len({result.timeline.server for result in results}) > 1


@pytest.mark.parametrize("family", list(Family))
def test_two_nodes_judge_and_either_may_drop(family, answers):
    answer = answers[family]
    for fix in (NONE, DROP_FORWARD):
        setting = Setting(HEADLINE, fix, load("two-nodes"), family)
        results = [asyncio.run(runner.run(setting, answer)) for _ in range(20)]
        assert all(result.as_expected for result in results)
        # Two servers, one behind each node: twenty times the same once in 2^19.
        judges = {frozenset(one.host for one in result.timeline.judged if one.packet.tcp) for result in results}
        assert len(judges) == 2


@pytest.mark.parametrize("name", ["client-on-node", "client-masqueraded"])
def test_what_the_node_takes_for_its_own_never_comes_to_its_drop(name, answers):
    timeline = run(CASES[name], DROP_FORWARD, Family.IPV4, answers[Family.IPV4]).timeline
    assert timeline.counters.dropped == 0
    leak = leaked(timeline)
    assert (leak.host, leak.interface, str(leak.packet.source)) == ("node", LOCAL, "10.0.1.2:80")
    [reset] = resets(timeline)
    assert reset.packet.source.address == "10.0.1.1"  # the node's own


def test_nobody_outside_sees_what_leaks_to_the_node(answers):
    timeline = run(CASES["client-masqueraded"], NONE, Family.IPV4, answers[Family.IPV4]).timeline
    likeness = timeline.injected.packet.likeness
    assert not any(s.host == "outside" and s.packet.likeness == likeness for s in timeline.sightings)


def test_a_blind_witness_of_the_nodes_own_sockets_is_no_pass(answers, monkeypatch):
    monkeypatch.setattr("lab.scenario.recorder.local_script", lambda _passing: "")
    assert not run(CASES["client-on-node-in-window"], NONE, Family.IPV4, answers[Family.IPV4]).as_expected


@pytest.mark.parametrize("family", list(Family))
def test_the_vip_is_seen_outside_where_the_node_has_a_default_route(family, answers):
    timeline = run(CASES["client-beyond-window-routed"], NONE, family, answers[family]).timeline
    leak = leaked(timeline)
    assert (leak.host, leak.packet.destination) == ("outside", timeline.target)


def test_the_pods_address_is_seen_outside(answers):
    timeline = run(CASES["egress-late-reset"], NONE, Family.IPV4, answers[Family.IPV4]).timeline
    leak = leaked(timeline)
    assert (leak.host, str(leak.packet.source)) == ("outside", "10.0.0.2:34567")
    assert str(timeline.peer_address) == "203.0.113.1:34567"


def test_the_pods_own_conntrack_judges_and_its_kernel_resets_the_client(answers):
    timeline = run(CASES["redirected-in-pod"], BE_LIBERAL, Family.IPV4, answers[Family.IPV4]).timeline
    words = {
        judged.host: judged.judgement
        for judged in timeline.judged
        if judged.packet.likeness == timeline.injected.packet.likeness
    }
    assert words == {"node": Judgement.ACCEPTED, "server": Judgement.INVALID}
    leak = leaked(timeline)
    assert (leak.host, leak.interface, str(leak.packet.destination)) == ("server", LOCAL, "10.0.1.2:80")
    [reset] = resets(timeline)
    assert (reset.host, str(reset.packet.source)) == ("client", "10.0.1.2:80")


def test_a_handshake_without_an_answer_is_refused_by_a_barrier(answers):
    answer = answers[Family.IPV4]
    result = run(CASES["asymmetric-route"], DROP_FORWARD, Family.IPV4, answer)
    assert result.verdict.because == (
        "no connection: the SYN,ACK never came back, and nobody refused it (it times out)",
        "it came to node and no further, INVALID there (invalid new)",
    )
    assert result.timeline.counters.dropped
    spent = result.timeline.sightings[-1].time - result.timeline.sightings[0].time
    assert spent < 5e9  # nothing waited for a time-out, and those of the lab are ten seconds


@pytest.mark.parametrize("case", ["in-window", "syn-ack-again", "port-reused"])
@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("drop", "the SYN came to no server, and nobody refused it (it times out)"),
        ("reject with tcp reset", "and a RST from 192.168.0.2 refused it"),
        ("reject with icmpx port-unreachable", "and an ICMP error from 192.168.0.2 refused it"),
    ],
)
def test_a_refusal_is_told_from_silence(answers, tmp_path, case, verdict, told):
    """Most clients are sockets, which tell of a refusal by their errno; a scripted one's stack hears none."""
    hook = "type filter hook forward priority -10; policy accept;"
    rules = f"table inet mine {{\nchain f {{\n{hook}\ntcp flags & (syn|ack) == syn {verdict}\n}}\n}}\n"
    (tmp_path / "mine.nft").write_text(rules)
    fix = find_fix(str(tmp_path / "mine.nft"))
    result = run(CASES[case], fix, Family.IPV4, answers[Family.IPV4])
    assert result.verdict.outcome is Outcome.REFUSED
    is_told = verdict != "drop" and case != "port-reused"
    assert result.verdict.because[0].endswith("ECONNREFUSED" if is_told else told)


def test_the_delayed_leak_is_pointed_out(answers):
    text = timeline_text(run(CASES["last-ignored-byte"], NONE, Family.IPV4, answers[Family.IPV4]).timeline)
    assert 0 < text.index("bytes more than expected") < text.index("OOPS: from the pod's address")


def test_another_expectation_is_not_met(answers):
    """A test of the tests: what is believed beforehand decides, not what comes."""
    wrong = Expectation(Judgement.INVALID, Outcome.DROPPED)
    case = dataclasses.replace(HEADLINE, expectations=on_every_kernel(lambda protection: wrong))
    assert not run(case, NONE, Family.IPV4, answers[Family.IPV4]).as_expected


def test_a_blind_witness_is_no_pass(answers, monkeypatch):
    monkeypatch.setattr(
        "lab.scenario.recorder.script",
        lambda **_options: (
            "table inet lab_witness {\n"
            + "".join(
                f"counter {state} {{\n}}\n" for state in ("new", "established", "related", "invalid", "untracked")
            )
            + "}\n"
        ),
    )
    result = run(HEADLINE, NONE, Family.IPV4, answers[Family.IPV4])
    assert not result.as_expected
    assert "no node's counting rules saw the judged packet" in result.verdict.disagreements
    assert "the counting rules on node missed the barrier datagram" in result.verdict.disagreements


def test_a_blind_capture_is_no_pass(answers, monkeypatch):
    from lab.wire.capture import Capture

    see = Capture.read
    monkeypatch.setattr(Capture, "read", lambda self: [] if self.host == "client" else see(self))
    result = run(CASES["in-window"], NONE, Family.IPV4, answers[Family.IPV4])
    assert not result.as_expected
    assert "the capture on client missed the barrier datagram" in result.verdict.disagreements


def test_a_trigger_that_does_not_trigger_is_no_pass(answers, monkeypatch):
    monkeypatch.setattr("lab.wire.craft.Injector.send", lambda self, packet: None)
    assert not run(HEADLINE, DROP_FORWARD, Family.IPV4, answers[Family.IPV4]).as_expected


def test_a_connection_that_is_refused_is_an_outcome(answers, monkeypatch):
    monkeypatch.setattr("lab.scenario.handshake.listen", lambda namespace, own: namespace.socket(2, 1))
    result = run(HEADLINE, NONE, Family.IPV4, answers[Family.IPV4])
    assert (result.verdict.outcome, result.verdict.because) == (
        Outcome.REFUSED,
        ("no connection: ECONNREFUSED",),
    )
    assert not result.as_expected


def test_the_kernel_answers_the_same_in_both_families():
    assert asyncio.run(probe.ask(Family.IPV4)) is asyncio.run(probe.ask(Family.IPV6))


def test_a_kernel_that_fits_nothing_known_is_said_to(monkeypatch):
    monkeypatch.setattr(probe, "_ANSWERS", {})
    with pytest.raises(probe.UnknownBehaviourError, match=r"fits no known behaviour: .*INVALID"):
        asyncio.run(probe.ask(Family.IPV4))


def test_results_survive_being_written_down(answers):
    result = run(HEADLINE, NONE, Family.IPV6, answers[Family.IPV6])
    report = Report("0", "6", {Family.IPV6: result.behaviour}, (Tally(result.trial).and_then(result),))
    assert from_json(to_json(report)) == report


def test_the_model_that_is_wrong_is_no_pass(answers, monkeypatch):
    monkeypatch.setattr("lab.evidence.window._LEAST_ACK_WINDOW", 100_000)
    result = run(CASES["ack-below"], NONE, Family.IPV4, answers[Family.IPV4])
    assert not result.as_expected
    assert any(words.startswith("by the model of conntrack at node") for words in result.verdict.disagreements)


def test_every_case_tells_its_story():
    for case in CASES.values():
        assert 1 <= case.story.count(". ") <= 4, case.name
        assert case.threads
        assert set(case.expectations) == set(Behaviour)
        assert all(case.expected(behaviour, fix.protection) for behaviour in Behaviour for fix in FIXES.values())


@pytest.mark.parametrize("case", cover.sample(QUICK, 12), ids=name)
def test_the_fixture_runs_what_the_command_runs(case, lab_trial):
    assert lab_trial(case.name, fix="drop-forward").as_expected
