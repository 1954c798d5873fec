"""Walks of a trial's packets through a node's rules, in both modes and by both programs."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import closing
from dataclasses import replace

import pytest

from lab import cases, fixes
from lab.conntrack import nflog
from lab.conntrack.nflog import TRACED, Record
from lab.errors import MissingError
from lab.evidence.packet import UDP, SocketAddress, decode
from lab.fabric.lab import Lab
from lab.netns import features
from lab.report.timeline import timeline_text
from lab.results.result import Report, Tally
from lab.results.saved import from_json, to_json
from lab.scenario import legacy, recorder
from lab.scenario.tracer import Tracer
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Backend, Family, ProxyMode
from lab.wire import nftrace
from lab.wire.craft import Segment, craft

pytestmark = pytest.mark.lab_kernel

WAYS = [(ProxyMode.IPTABLES, Backend.NFT), (ProxyMode.IPTABLES, Backend.LEGACY), (ProxyMode.NFTABLES, None)]


def run(case="beyond-window", fix="none", mode=ProxyMode.IPTABLES, backend=Backend.NFT, *, version=None, **more):
    found = cases.find(case)
    family = more.pop("family", Family.IPV4)
    topology = with_proxy(load(found.topology), mode, version, backend)
    setting = Setting(found, fixes.find(fix), topology, family, traced=True)

    async def go():
        return await runner.run(replace(setting, **more), await probe.ask(family))

    return asyncio.run(go())


def way(walk):
    return [(at.hook, at.table, at.chain) for at in walk.hooks]


@pytest.mark.parametrize(("mode", "backend"), WAYS)
@pytest.mark.parametrize("family", list(Family))
def test_a_handshake_and_the_packet_that_resets_it(mode, backend, family):
    result = run(mode=mode, backend=backend, family=family)
    timeline = result.timeline
    assert result.as_expected, result.surprise
    assert timeline.untraced == ()
    syn, answer, judged, reset, *_more = timeline.walks
    assert [one.role for one in (syn, answer, judged, reset)] == ["handshake", "handshake", "judged", "reset"]
    assert [one.state for one in (syn, answer, judged, reset)] == ["new", "established", "invalid", "invalid"]
    # The SYN is translated by a rule, its answer by the entry, what is INVALID by nobody.
    assert (syn.packet.destination, syn.left.destination) == (timeline.target, timeline.server_address)
    [translated] = [at for at in syn.hooks if at.after.destination != at.before.destination]
    assert "dnat" in translated.decided.rule.text.lower()
    assert translated.decided.verdict == "accept"
    assert (answer.packet.source, answer.left.source) == (timeline.server_address, timeline.target)
    assert judged.left.source == timeline.server_address
    assert (judged.fate, judged.accepted_by) == (None, ())
    expected = (
        [("forward", "filter", "FORWARD")]
        if mode is ProxyMode.IPTABLES
        else [("prerouting", "kube-proxy", "filter-prerouting"), ("forward", "kube-proxy", "filter-forward")]
    )
    assert way(judged) == expected
    assert all(at.steps[-1].is_policy for at in judged.hooks)


@pytest.mark.parametrize(("mode", "backend"), WAYS)
def test_the_rule_that_drops_is_named(mode, backend):
    result = run(fix="drop-forward", mode=mode, backend=backend)
    assert result.as_expected, result.surprise
    [judged] = result.timeline.judged_walks
    chain = "KUBE-FORWARD" if mode is ProxyMode.IPTABLES else "filter-forward"
    assert (judged.fate.chain, judged.fate.rule.position, judged.left) == (chain, 1, None)
    assert judged.fate.rule.drops_invalid
    assert result.verdict.because[0].startswith("dropped by ")
    assert f"{chain} rule 1" in result.verdict.because[0]
    assert judged.fate.rule.text in result.verdict.because[1]
    assert "DROPPED by" in timeline_text(result.timeline)


@pytest.mark.parametrize(("mode", "backend"), WAYS[:2])
def test_rules_that_were_asked_and_did_not_match_are_told_in_order(mode, backend):
    result = run(mode=mode, backend=backend)
    syn = result.timeline.walks[0]
    [step] = [one for one in syn.steps if one.chain.startswith("KUBE-SEP-")]
    assert [rule.position for rule in step.missed] == [1]
    assert "-j KUBE-MARK-MASQ" in step.missed[0].text
    assert step.rule.position == 2


@pytest.mark.parametrize(("mode", "backend"), WAYS)
def test_marks_and_masquerading_are_told(mode, backend):
    result = run("client-masqueraded", mode=mode, backend=backend)
    assert result.timeline.untraced == ()
    syn = result.timeline.walks[0]
    assert syn.left.source != syn.packet.source
    [at] = [at for at in syn.hooks if at.after.source != at.before.source]
    assert at.hook == "postrouting"
    assert "masquerade" in at.decided.rule.text.lower()
    marked = [step for step in syn.steps if step.chain in ("KUBE-MARK-MASQ", "mark-for-masquerade") and step.rule]
    assert [step.mark for step in marked] == [0x4000]
    assert marked[0].verdict == "continue"


def test_what_iptables_legacy_cannot_tell_is_said(monkeypatch):
    """A kernel without the target TRACE logs nothing of its rules."""
    options = {option: "y" for name, option in features.MODULES.items() if name != "xt_TRACE"}
    monkeypatch.setattr(features, "_kernel_options", lambda: options)
    monkeypatch.setattr(recorder, "TRACED", "no such words")
    timeline = run(backend=Backend.LEGACY).timeline
    [words] = timeline.untraced
    assert "CONFIG_NETFILTER_XT_TARGET_TRACE" in words
    assert "--backend nft" in words
    lost = replace(timeline.walks[0], left=None)
    assert "and no rule that is traced (those of iptables-legacy are not) has dropped it" in lost.vanishing


@pytest.mark.parametrize("backend", list(Backend))
def test_what_the_kernel_had_to_throw_away_is_said(monkeypatch, backend):
    """Nobody has read it in time: of the walk there is a part, or nothing."""
    monkeypatch.setattr(nftrace, "_BUFFER", 1)
    assert "the kernel lost a part of the trace at node" in run(backend=backend).timeline.untraced


def test_what_the_kernel_had_to_throw_away_of_its_log_is_a_fault_of_the_trial(monkeypatch):
    monkeypatch.setattr(nflog, "_BUFFER", 1)
    result = run(backend=Backend.LEGACY)
    assert "the kernel lost a part of its log at node" in result.verdict.disagreements
    assert any("iptables-legacy" in words for words in result.timeline.untraced)


@pytest.mark.parametrize(("mode", "backend"), WAYS[1:])
def test_a_packet_of_which_nothing_is_told_is_said_to_be_missing(monkeypatch, mode, backend):
    """Of what conntrack has judged there is a walk."""
    of_trace = Tracer.read
    monkeypatch.setattr(Tracer, "read", lambda self: of_trace(self)[:2])
    timeline = run(mode=mode, backend=backend).timeline
    words = "conntrack judged it there, and no trace tells of it"
    assert {f"judged at node: {words}", f"reset at node: {words}"} == set(timeline.untraced)


def test_a_packet_whose_rules_are_not_told_by_iptables_legacy_has_no_walk(monkeypatch):
    """What came past them is not said to have come past none."""
    by_packet = legacy.by_packet
    monkeypatch.setattr(legacy, "by_packet", lambda records: [one[:1] for one in by_packet(records)[:3]])
    timeline = run(backend=Backend.LEGACY).timeline
    assert timeline.walks == ()
    assert "judged at node: iptables-legacy told nothing of it" in timeline.untraced
    assert "handshake at node: iptables-legacy did not tell all of it" in timeline.untraced


def test_records_of_two_processors_are_told_apart():
    """They log in between each other: each record is of the packet that is in it."""
    first, second = (
        craft(Segment(SocketAddress("10.0.0.2", 40000), SocketAddress("10.0.1.2", 80), number, 0, "S", 1000))
        for number in (1, 2)
    )

    def record(words, data):
        return Record(0, words, None, data, decode(data))

    rule = f"{TRACED}filter:FORWARD:policy:1"
    records = [record(legacy.MARK, first), record(legacy.MARK, second), record(rule, first), record(rule, second)]
    assert legacy.by_packet(records) == [[records[0], records[2]], [records[1], records[3]]]


@pytest.mark.parametrize("mode", list(ProxyMode))
@pytest.mark.parametrize("case", ["endpoint-removed", "syn-before-service"])
def test_rules_are_told_as_they_were_when_the_packet_met_them(case, mode):
    """The node's rules become others under way: a chain has as many rules as before, but not the same ones."""
    timeline = run(case, mode=mode, backend=None).timeline
    assert timeline.untraced == ()
    assert timeline.walks
    for walk in timeline.walks:
        for at in walk.hooks:
            if at.after is not None and at.after.destination != at.before.destination and at.steps[-1].rule:
                assert at.after.destination.address in at.steps[-1].rule.text


@pytest.mark.parametrize("case", ["tour-of-states", "picked-up"])
def test_rules_that_are_gone_by_the_end_are_told(case):
    """A case's own rules, which it takes away again."""
    timeline = run(case).timeline
    assert timeline.untraced == ()
    assert timeline.walks


def test_copies_that_a_bridge_makes_are_walks_of_their_own():
    """They have numbers of their own, and came by no first hook."""
    try:
        timeline = run("promiscuous-bridge").timeline
    except MissingError as error:
        pytest.skip(f"not run by the lab: {error}")
    question, *copies = [
        walk for walk in timeline.walks if walk.packet.protocol == UDP and walk.state == "new" and not walk.vanished
    ]
    assert question.hooks[0].hook == "prerouting"
    assert copies
    assert {copy.hooks[0].hook for copy in copies} == {"forward"}
    assert {copy.left for copy in copies} == {question.left}


@pytest.mark.parametrize("family", list(Family))
def test_what_neighbours_say_in_a_tunnel_is_no_walk_of_a_trials(family):
    """Nor are the lab's own datagrams there; kernels report groups when their timers want, here the moment they join.

    On a busy machine such a report came before the packet that is judged, and stood in the place of its walk.
    """
    case = cases.find("vxlan-wrong-checksum")

    async def steps(scenario):
        namespace = scenario.lab.hosts["node-a"].namespace
        with namespace.entered():
            tunnel = socket.if_nametoindex("flannel.1")
        if family is Family.IPV6:
            group, report = socket.inet_pton(socket.AF_INET6, "ff02::1234") + struct.pack("=I", tunnel), "ff02::16"
            option = (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        else:
            group, report = socket.inet_aton("239.1.2.3") + bytes(4) + struct.pack("=I", tunnel), "224.0.0.22"
            option = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        with namespace.socket(socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setsockopt(*option)
            await scenario.until(
                lambda: any(seen.packet.destination.address == report for seen in scenario.seen("node-b")),
                "a report in the tunnel",
            )
            await case.steps(scenario)

    setting = Setting(replace(case, steps=steps), fixes.NONE, load(case.topology), family, traced=True)

    async def go():
        return await runner.run(setting, await probe.ask(family))

    timeline = asyncio.run(go()).timeline
    assert timeline.untraced == ()
    [walk] = timeline.walks
    assert (walk.role, walk.state) == ("judged", "invalid")
    assert walk.counted


@pytest.mark.parametrize(("mode", "backend"), WAYS)
@pytest.mark.parametrize("family", list(Family))
def test_a_datagram_in_fragments_has_one_walk(mode, backend, family):
    """Conntrack puts them together; behind it the rules are asked once, and it leaves in fragments again."""
    case = cases.find("beyond-window")

    async def steps(scenario):
        server = scenario.roles.servers[0][1].address
        version = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
        with scenario.lab.hosts["client"].namespace.socket(version, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes(3000), (server, 5000))
        await case.steps(scenario)

    topology = with_proxy(load(case.topology), mode, None, backend)
    setting = Setting(replace(case, steps=steps), fixes.NONE, topology, family, traced=True)

    async def go():
        return await runner.run(setting, await probe.ask(family))

    timeline = asyncio.run(go()).timeline
    assert timeline.untraced == ()
    [walk] = [one for one in timeline.walks if one.packet.protocol == UDP]
    assert (walk.packet.payload_length, walk.packet.destination.port, walk.state) == (3000, 5000, "new")
    assert not walk.vanished
    assert walk.left == walk.packet
    assert "forward" in [at.hook for at in walk.hooks]


def test_what_was_given_to_a_program_is_not_said_to_have_vanished():
    try:
        timeline = run("dns-race-one-endpoint").timeline
    except MissingError as error:
        pytest.skip(f"not run by the lab: {error}")
    walk = timeline.walks[0]
    assert walk.queued.table == "lab_hold"
    assert not walk.vanished


def test_results_are_the_same_when_they_come_back():
    result = run(fix="drop-forward")
    tally = Tally(result.trial).and_then(result)
    report = Report("0", "6.1", {}, (tally,))
    assert from_json(to_json(report)) == report
    assert report.tallies[0].sample.timeline.walks


def test_nothing_is_traced_unless_it_is_wanted():
    assert run(traced=False).timeline.walks == ()


def test_a_foreign_table_that_counts_nothing_is_named_as_who_dropped():
    """Without a trace nobody could tell: the rule has no counter, and the witnesses disagree."""
    case = cases.find("beyond-window")

    async def steps(scenario):
        scenario.load(
            "node",
            "table inet firewall {\nchain f { type filter hook forward priority -5; jump i; }\n"
            "chain i {\n}\n}\nadd rule inet firewall i ct state invalid drop",
        )
        await case.steps(scenario)

    setting = Setting(replace(case, steps=steps), fixes.NONE, load("kube-proxy"), Family.IPV4, traced=True)

    async def go():
        return await runner.run(setting, await probe.ask(Family.IPV4))

    result = asyncio.run(go())
    assert result.verdict.outcome == "dropped"
    assert result.verdict.disagreements == ()
    [judged] = result.timeline.judged_walks
    assert (judged.fate.family, judged.fate.table, judged.fate.chain) == ("inet", "firewall", "i")
    assert judged.fate.rule.text == "ct state invalid drop"


def rules_of(node):
    """Return a node's rules, without when they were asked for."""
    return [line for line in node.xtables.save(4).splitlines() if not line.startswith("#")]


def test_the_tables_of_the_trace_give_no_verdict():
    with Lab(load("kube-proxy")) as lab:
        node = lab.hosts["node"]
        before = rules_of(node)
        with closing(Tracer(node)):
            listing = node.nft.run("list table inet lab_trace")
            assert rules_of(node) == before
        words = set(listing.replace(";", " ").split())
        assert words & {"drop", "reject", "queue", "dnat", "snat", "notrack"} == set()
        assert listing.count("policy accept") == listing.count("type filter hook")
