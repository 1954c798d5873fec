"""What became of questions by datagram is decided from plain data: no kernel is asked."""

import dataclasses

import pytest

from lab.evidence.entry import Entry
from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import UDP, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.evidence.timeline import Check, Counters, DatagramsTimeline, Exchange
from lab.report.timeline import timeline_text
from lab.verdict import Outcome
from lab.verdict.datagrams import decide, decide_by_the_last
from tests.support.timelines import between

CLIENT, POD, VIP = SocketAddress("10.0.0.2", 34567), SocketAddress("10.0.1.2", 53), SocketAddress("10.96.0.10", 53)
QUESTION = Packet(CLIENT, VIP, UDP, 7, 10)
ANSWER = Packet(VIP, CLIENT, UDP, 8, 210)
STRANGE = dataclasses.replace(ANSWER, source=POD)

ANSWERED = Exchange("client", VIP, QUESTION, ("dns-1",), ANSWER, True, None)
LEAKED = dataclasses.replace(ANSWERED, answer=STRANGE, answered=False)
UNANSWERED = dataclasses.replace(ANSWERED, answer=None, answered=False)
UNHEARD = dataclasses.replace(UNANSWERED, reached=())
REFUSED = dataclasses.replace(UNHEARD, error="ECONNREFUSED")


def timeline(*exchanges, statistics=None, **changes):
    whole = DatagramsTimeline(
        **between(CLIENT, VIP, POD, server="dns-1"),
        sightings=(
            Sighting(1_000_000, "client", "eth0", True, QUESTION),
            Sighting(1_001_000, "node", "client", False, QUESTION),
            Sighting(2_000_000, "client", "eth0", True, Packet(SocketAddress("10.0.0.2", 7), POD, UDP, 9, 5)),
        ),
        judged=(Judged("node", 1_001_000, QUESTION, "new", ""),),
        entry=Entry(UDP, (CLIENT, VIP), (POD, CLIENT), None, False, 30),
        counters=Counters({"new": 1}, statistics or {}, None),
        refusal=None,
        complete=all(exchange.answered for exchange in exchanges),
        exchanges=exchanges,
    )
    return dataclasses.replace(whole, **changes)


@pytest.mark.parametrize(
    ("exchange", "outcome", "because"),
    [
        (ANSWERED, Outcome.DELIVERED, "answered by dns-1"),
        (LEAKED, Outcome.LEAKED, "answer came from 10.0.1.2"),
        (UNANSWERED, Outcome.LOST, "no answer, reached dns-1"),
        (UNHEARD, Outcome.LOST, "reached no server"),
        (REFUSED, Outcome.REFUSED, "ECONNREFUSED"),
    ],
    ids=["answered", "leaked", "unanswered", "unheard", "refused"],
)
def test_outcomes(exchange, outcome, because):
    verdict = decide(timeline(exchange))
    assert (verdict.outcome, verdict.judgement, verdict.because) == (outcome, Judgement.NEW, (because,))
    assert verdict.disagreements == ()


def test_the_first_that_went_wrong_decides_or_the_last():
    seen = timeline(UNHEARD, ANSWERED)
    assert decide(seen).outcome is Outcome.LOST
    assert decide_by_the_last(seen).outcome is Outcome.DELIVERED
    assert decide(timeline(ANSWERED, LEAKED)).outcome is Outcome.LEAKED


def test_what_conntrack_dropped_is_said_to_be():
    verdict = decide(timeline(UNHEARD, statistics={"insert_failed": 1, "drop": 1}))
    assert verdict.because == ("reached no server, insert_failed 1, drop 1",)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (timeline(ANSWERED, judged=()), "the node's counting rules never saw the question"),
        (
            timeline(dataclasses.replace(ANSWERED, answer=None)),
            "a socket took an answer that its host's capture did not",
        ),
        (timeline(ANSWERED, faults=("the captures lost 3 packets",)), "the captures lost 3 packets"),
        (timeline(ANSWERED, checks=(Check("an entry", False, "none"),)), "expected an entry, but it is none"),
    ],
)
def test_witnesses_that_contradict_each_other(seen, words):
    assert any(found.startswith(words) for found in decide(seen).disagreements)


def test_questions_are_drawn_and_barriers_are_not():
    lines = timeline_text(timeline(LEAKED, statistics={"insert_failed": 1})).splitlines()
    assert lines[0] == "   0.000 ms  client eth0 > node client  10.0.0.2:34567 > 10.96.0.10:53  UDP len 10  NEW"
    asked = "client asked 10.96.0.10:53 from port 34567: reached dns-1"
    assert lines[1] == f"{asked}, answered from 10.0.1.2:53, which its socket does not talk to"
    counted = "INVALID by the nodes' count: 0, insert_failed 1"
    assert lines[2:] == [f"{counted}; conntrack entry at node: UDP, 30 s left"]
