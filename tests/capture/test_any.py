"""Captures of `-i any` that tcpdump writes on a node: hop by hop, where a translation is missing and a RST answers."""

import asyncio

import pytest

from lab.cases import CASES
from lab.evidence.packet import ACK, PSH, RST, SYN, SocketAddress
from lab.fixes import FIXES
from lab.topology.reader import load
from lab.trial.runner import run
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family
from tests.support.captures import MOMENT, kind_of, linked, pcap, tcp
from tests.support.dumping import Dumps
from tests.support.explaining import explained

pytestmark = pytest.mark.lab_kernel


def dumped(case, *points, topology="kube-proxy", fix="none"):
    """Return the only connection that tcpdump captured while a case was tried."""
    dumps = Dumps(*points)
    setting = Setting(CASES[case], FIXES[fix], load(topology), Family.IPV4)
    asyncio.run(run(setting, Behaviour.IGNORES_LATE, build=dumps.build))
    [one] = explained(dumps.captures).connections
    return one


def hops(finding):
    return [(hop.way, hop.source.address, hop.destination.address) for hop in finding.hops]


def test_a_leak_is_told_hop_by_hop():
    one = dumped("beyond-window", ("node", "any"))
    assert one.outcome is Outcome.RESET
    found = one.findings[0]
    client, vip, pod = one.client.address, one.target.address, one.endpoint.address
    assert hops(found) == [("in", pod, client), ("out", pod, client), ("in", client, pod), ("out", client, pod)]
    here, leak, reset, beyond = found.hops
    assert (here.words, beyond.words) == ("", "")
    assert leak.words == f"not translated: {vip}:80 was to be its source"
    assert reset.words == f"the RST that answers it: it came from beyond {reset.place.point}"
    assert reset.place.point == leak.place.point != here.place.point == beyond.place.point
    assert [hop.place.number for hop in found.hops] == sorted(hop.place.number for hop in found.hops)


def test_what_a_node_drops_goes_out_nowhere():
    [only] = dumped("beyond-window", ("node", "any"), fix="drop-forward").findings[0].hops
    assert (only.way, only.words) == ("in", "it goes out nowhere: dropped here, or lost")


def test_a_node_that_is_the_client_itself_answers_with_the_reset():
    found = dumped("client-on-node", ("node", "any"), topology="uplink").findings[0]
    assert [hop.way for hop in found.hops] == ["in", "out"]
    assert found.hops[1].words.endswith("the machine that captured sent it itself")


@pytest.mark.parametrize("topology", ["kube-proxy", "bridge"])
def test_of_a_healthy_connection_nothing_is_lost(topology):
    """A bridge has the first packet at more of its interfaces than those that follow."""
    kinds = {finding.kind for finding in dumped("in-window", ("node", "any"), topology=topology).findings}
    assert kinds <= {"reset"}  # as the lab's own client ends


def test_an_answer_past_the_node_s_rules_is_told_hop_by_hop():
    one = dumped("answer-across-bridge", ("node", "any"), topology="bridge")
    assert one.outcome is Outcome.REFUSED
    assert [hop.way for hop in one.findings[0].hops] == ["in", "out", "in", "out"]
    assert "was to be its source" in one.findings[0].hops[1].words


# --- made by hand: what no case of the catalogue makes --------------------------------------------------

CLIENT, VIP, POD, NODE = ("10.1.0.3", 40000), ("192.168.0.2", 80), ("10.1.0.3", 8080), ("10.1.0.1", 40000)
OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"


def hairpin(*last):
    """Return a connection of a pod to itself by its Service, at the one interface that leads to it, and then others."""
    packets = []
    for by_client, *rest in (
        (True, SYN, 1000, 0, b""),
        (False, SYN | ACK, 5000, 1001, b""),
        (True, ACK, 1001, 5001, b""),
        (True, ACK | PSH, 1001, 5001, b"question"),
        (False, ACK | PSH, 5001, 1009, b"answer"),
    ):
        ways = ((CLIENT, VIP), (NODE, POD)) if by_client else ((POD, NODE), (VIP, CLIENT))
        options = OPTIONS if rest[0] & SYN else b""
        both = zip(ways, (False, True), strict=True)
        packets += [linked(tcp(*ends, *rest, options=options), 276, outgoing=out) for ends, out in both]
    packets += last
    return {"any.pcap": pcap([(MOMENT + at * 10_000, one) for at, one in enumerate(packets)], link=276)}


def test_a_hairpin_that_is_well_has_nothing_to_tell():
    [one] = explained(hairpin()).connections
    assert (one.findings, one.outcome) == ((), Outcome.CONNECTED)
    assert (one.client, one.peer, one.target) == (SocketAddress(*CLIENT), SocketAddress(*NODE), SocketAddress(*VIP))


def test_in_a_hairpin_the_node_itself_answers_what_is_not_translated():
    """Its address is the one to which the pod answers."""
    far = linked(tcp(POD, NODE, ACK | PSH, 5001 + 2**29, 1009, b"far"), 276, outgoing=False)
    reset = linked(tcp(NODE, POD, RST, 1009, 0, window=0), 276)
    [one] = explained(hairpin(far, reset)).connections
    assert one.outcome is Outcome.RESET
    [first, second] = one.findings[0].hops
    assert (first.way, first.words) == ("in", "")
    assert (second.way, second.destination) == ("out", SocketAddress(*POD))
    assert second.words == "the RST that answers it: the machine that captured sent it itself"


ASKER, OTHER = ("10.0.0.2", 34567), ("10.0.1.2", 80)
ASKED = tcp(ASKER, VIP, SYN, 1000, 0, options=OPTIONS, number=1)
FLOODED = tcp(ASKER, OTHER, SYN, 1000, 0, options=OPTIONS, number=1)
ANSWER = tcp(OTHER, ASKER, SYN | ACK, 5000, 1001, options=OPTIONS)
RESET = tcp(ASKER, OTHER, RST, 1001, 0, window=0)
PODS, NODES, SERVERS = (bytes([2, 0, 0, 0, 0, number]) for number in (1, 2, 3))


def framed(packet, source, destination):
    return destination + source + kind_of(packet) + packet


@pytest.mark.parametrize(
    ("packets", "link", "outcome", "words"),
    [
        ((ASKED, FLOODED, ANSWER, RESET), 101, Outcome.REFUSED, "leaked: packet 3 comes from 10.0.1.2:80"),
        (
            (framed(ASKED, PODS, NODES), framed(FLOODED, NODES, SERVERS), framed(ANSWER, SERVERS, PODS)),
            1,
            Outcome.STALLED,
            "leaked: packet 3 comes from 10.0.1.2:80",
        ),
        (
            (ASKED, FLOODED, ANSWER, tcp(ASKER, VIP, SYN, 1000, 0, options=OPTIONS, number=2)),
            101,
            Outcome.STALLED,
            "the SYN,ACK was seen last as packet 3, not translated back: it leaked, or was dropped",
        ),
    ],
)
def test_a_stranger_s_answer_beside_a_flooded_copy_of_the_syn(packets, link, outcome, words):
    """At the client's own interface, where a bridge does not know yet where the endpoint is."""
    told = explained({"x.pcap": pcap([(MOMENT + at * 10_000, one) for at, one in enumerate(packets)], link=link)})
    [one] = told.connections
    assert one.outcome is outcome
    assert any(words in finding.words for finding in one.findings), one.findings


def test_an_answer_that_is_translated_beside_a_flooded_copy_is_well():
    back = tcp(VIP, ASKER, SYN | ACK, 5000, 1001, options=OPTIONS)
    frames = (
        framed(ASKED, PODS, NODES),
        framed(FLOODED, NODES, SERVERS),
        framed(ANSWER, SERVERS, NODES),
        framed(back, NODES, PODS),
    )
    told = explained({"x.pcap": pcap([(MOMENT + at * 10_000, one) for at, one in enumerate(frames)], link=1)})
    assert not told.found
