"""Nodes that see one direction of a connection alone, or none: what is said of it is what was seen."""

import asyncio
from functools import cache
from pathlib import Path

import pytest

from lab.cases import find
from lab.evidence.judgement import Judgement
from lab.fixes import FIXES
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Family

INPUTS = Path(__file__).parents[1] / "support" / "inputs"
TOPOLOGIES = Path(__file__).parents[2] / "topologies"

pytestmark = pytest.mark.lab_kernel


@cache
def known():
    return asyncio.run(probe.ask(Family.IPV4))


def tried(case, topology, fix="none", version=None):
    place = with_proxy(load(topology), None, version, None)
    return asyncio.run(runner.run(Setting(find(case), FIXES[fix], place, Family.IPV4), known()))


@pytest.mark.parametrize("fix", ["none", "be-liberal"])
def test_a_handshake_that_stays_half_open_says_who_is_connected_and_where_the_ack_went(fix):
    result = tried("without-nat", INPUTS / "oneway-otherhalf.yaml", fix)
    verdict, timeline, reason = result.verdict, result.timeline, "packet (index 3) in dir 0 invalid, state SYN_SENT"
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.STALLED, Judgement.INVALID, ())
    assert verdict.because == (
        "half open: outside is connected, pod is not",
        f"the ACK of the handshake came to a and no further, INVALID there ({reason})",
    )
    assert [(end.host, end.error) for end in timeline.ends] == [("outside", None)]
    assert not any(sighting.packet.tcp.flags & 4 for sighting in timeline.sightings if sighting.packet.tcp)
    assert timeline.counters.dropped == 1
    assert timeline.findings == ("a sees only what outside sends: from pod to outside it goes pod > b > outside",)


def test_without_the_drop_the_same_connection_comes_about_and_each_node_is_predicted_by_itself():
    result = tried("without-nat", INPUTS / "oneway-otherhalf.yaml", version="v1.14")
    assert result.verdict.disagreements == ()
    injected = result.timeline.injected
    assert injected.nodes == ("b",)
    assert injected.predictions["b"].judgement is result.timeline.judged_at("b", injected.packet).judgement


@pytest.mark.parametrize("name", ["bridge-shortcut", "bridge-shortcut_swapped"])
def test_a_bypass_is_found_and_no_fault_of_the_instruments(name):
    found = "worker sees only what shop sends: from stock to shop it goes stock > shop"
    refused = tried("beyond-window", INPUTS / f"{name}.yaml").verdict
    assert (refused.outcome, refused.because) == (
        Outcome.REFUSED,
        ("no connection: the SYN,ACK came from 10.61.2.2",),
    )
    assert (refused.findings, refused.disagreements) == ((found,), ())
    past = tried("without-nat", INPUTS / f"{name}.yaml")
    assert (past.verdict.outcome, past.verdict.judgement) == (Outcome.DELIVERED, None)
    assert (past.verdict.findings, past.verdict.disagreements) == ((found,), ())
    leaving = [one for one in past.timeline.sightings if one.packet == past.timeline.injected.packet and one.outgoing]
    assert [one.interface for one in leaving] == ["direct"]


def test_a_client_without_a_route_is_told_so():
    verdict = tried("beyond-window", INPUTS / "oneway-otherhalf.yaml").verdict
    assert verdict.because == ("no connection: ENETUNREACH: outside has no route to 172.28.0.9",)
    assert verdict.disagreements == ()


def test_a_node_that_is_not_on_the_way_and_comes_first_does_not_judge(tmp_path):
    spare = "hosts:\n  spare: {forwarding: true, proxy-mode: iptables}\n"
    path = tmp_path / "spare.yaml"
    path.write_text((TOPOLOGIES / "kube-proxy.yaml").read_text().replace("hosts:\n", spare, 1))
    result = tried("beyond-window", path)
    assert (result.timeline.node, result.verdict.outcome, result.verdict.disagreements) == ("node", Outcome.RESET, ())


def test_three_nodes():
    result = tried("beyond-window", INPUTS / "nodeport3-three_na_first.yaml")
    assert (result.verdict.outcome, result.verdict.disagreements) == (Outcome.RESET, ())


@pytest.mark.parametrize(
    ("fix", "outcome"),
    [("none", "delivered"), ("drop-forward", "stalled"), ("be-liberal", "delivered"), ("notrack", "delivered")],
)
def test_the_clients_half_of_an_asymmetric_route(fix, outcome):
    result = tried("asymmetric-route-clients-half", "asymmetric", fix)
    assert result.as_expected, result.verdict
    assert result.verdict.outcome == outcome


@pytest.mark.parametrize(
    ("topology", "fix", "because"),
    [
        ("segment", "none", "no connection: the SYN,ACK came from 10.1.2.2"),
        ("segment", "drop-forward", "no connection: the SYN,ACK came from 10.1.2.2"),
        ("nodeport3-three_na_first", "none", "no connection: the SYN,ACK came from 10.91.2.2"),
        ("nodeport3-three_na_first", "drop-forward", "no connection: the SYN,ACK never came back"),
    ],
)
def test_an_answer_past_the_node_that_was_asked_comes_from_a_stranger_or_not_at_all(topology, fix, because):
    """Kubernetes #74383: the pod's own node has seen the translated SYN only where the endpoint is its own."""
    place = topology if topology == "segment" else INPUTS / f"{topology}.yaml"
    refused = tried("answer-past-node", place, fix, "v1.14")
    assert refused.verdict.outcome is Outcome.REFUSED
    assert refused.verdict.because[0].startswith(because)
    assert tried("answer-by-node", place, fix, "v1.14").verdict.outcome is Outcome.DELIVERED
