"""Verdicts are decided from plain data: what would be seen is written down here, and no kernel is asked."""

import dataclasses

import pytest

from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import ACK, FIN, ICMP, PSH, RST, TCP, IcmpHeader, Packet, SocketAddress, TcpHeader
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Check, ConnectionTimeline, Counters, Injected, SocketEnd
from lab.evidence.window import Prediction, by_state
from lab.verdict import Outcome
from lab.verdict import packet as of_packet
from lab.verdict.connection import decide
from lab.verdict.packet import lost_where
from tests.support.timelines import between

CLIENT, POD, VIP = SocketAddress("10.0.0.2", 34567), SocketAddress("10.0.1.2", 80), SocketAddress("192.168.0.2", 80)


def packet(source, destination, flags, sequence=5000, acknowledgement=16, length=0):
    return Packet(source, destination, TCP, 1, length, TcpHeader(sequence, acknowledgement, flags, 64))


FORGED = packet(POD, CLIENT, PSH | ACK, length=7)
LEAKED = Sighting(30, "client", "eth0", False, FORGED)
TRANSLATED = Sighting(30, "client", "eth0", False, dataclasses.replace(FORGED, source=VIP))
RESET = Sighting(50, "server", "eth0", False, packet(CLIENT, POD, RST, sequence=16))


def timeline(*sightings, state="invalid", reason="SEQ is over", dropped=None, errors=(None, None), **changes):
    server, client = errors
    judged = [Judged("node", 20, FORGED, state, reason)]
    if RESET in sightings:
        judged.append(Judged("node", 45, RESET.packet, "invalid", "invalid new"))
    invalid = sum(word.state == "invalid" for word in judged)
    whole = ConnectionTimeline(
        **between(CLIENT, VIP, POD),
        first_numbers={"client": 0, "server": 0},
        injected=Injected("server", "client", FORGED, True, 2**29, 64512, 16, nodes=("node",)),
        sightings=(Sighting(10, "server", "eth0", True, FORGED), *sightings),
        judged=tuple(judged),
        entry=None,
        counters=Counters({"invalid": invalid}, {"invalid": invalid}, dropped),
        ends=(SocketEnd("client", CLIENT, client, 25, 5000, True), SocketEnd("server", POD, server, 5000, 25, True)),
        refusal=None,
        complete=errors == (None, None),
    )
    return dataclasses.replace(whole, **changes)


RESET_TIMELINE = timeline(LEAKED, RESET, errors=("ECONNRESET", "ECONNRESET"))


@pytest.mark.parametrize(
    ("seen", "outcome", "judgement"),
    [
        (RESET_TIMELINE, Outcome.RESET, Judgement.INVALID),
        (timeline(LEAKED, RESET, errors=("EPIPE", None)), Outcome.RESET, Judgement.INVALID),
        (timeline(dropped=1), Outcome.DROPPED, Judgement.INVALID),
        (timeline(LEAKED), Outcome.LEAKED, Judgement.INVALID),
        (timeline(TRANSLATED, state="established", reason=""), Outcome.DELIVERED, Judgement.ACCEPTED),
        (timeline(TRANSLATED, state="established", reason="late"), Outcome.DELIVERED, Judgement.IGNORED),
        (timeline(LEAKED, target=POD), Outcome.DELIVERED, Judgement.INVALID),
        (timeline(LEAKED, complete=False), Outcome.STALLED, Judgement.INVALID),
        (timeline(LEAKED, errors=("ETIMEDOUT", None)), Outcome.LOST, Judgement.INVALID),
    ],
    ids=["reset", "reset-epipe", "dropped", "leaked", "accepted", "ignored", "no-nat", "stalled", "lost"],
)
def test_outcomes(seen, outcome, judgement):
    verdict = decide(seen)
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (outcome, judgement, ())


def test_no_connection():
    verdict = decide(
        timeline(ends=(), injected=None, refusal="ECONNREFUSED", judged=(), counters=Counters({}, {}, None))
    )
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.REFUSED, None, ())
    assert verdict.because == ("no connection: ECONNREFUSED",)


def test_a_server_that_was_reset_by_nobody_seen_is_lost():
    assert decide(timeline(LEAKED, errors=("ECONNRESET", None))).outcome is Outcome.LOST


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (timeline(dropped=1, faults=("the captures lost 3 packets",)), "the captures lost 3 packets"),
        (timeline(dropped=1, judged=()), "no node's counting rules saw the judged packet"),
        (
            timeline(dropped=1, counters=Counters({"invalid": 2}, {"invalid": 1}, 1)),
            "the counting rules logged 1 INVALID packets and counted 2",
        ),
        (
            timeline(dropped=1, counters=Counters({"invalid": 1}, {"invalid": 0}, 1)),
            "the counting rules logged 1 INVALID packets, conntrack's statistics say 0",
        ),
        (
            timeline(LEAKED, state="established"),
            "conntrack judged the packet ignored, and yet it was not translated back",
        ),
        (timeline(TRANSLATED), "conntrack judged the packet INVALID, and yet it was translated back"),
        (
            timeline(TRANSLATED, state="established", reason="", dropped=1),
            "rules dropped 1 INVALID packets, 0 were counted",
        ),
        (timeline(dropped=0), "the packet did not reach client, but no rule counted a drop"),
        (timeline(LEAKED, RESET), "a reset with the exact number reached the server, and yet its socket lives"),
        (
            timeline(dropped=1, ends=(SocketEnd("client", CLIENT, None, 25, 5000, False), *timeline().ends[1:])),
            "client received bytes that were not sent",
        ),
    ],
)
def test_witnesses_that_contradict_each_other(seen, words):
    assert words in decide(seen).disagreements


def test_what_decided_it_in_a_few_words():
    assert decide(RESET_TIMELINE).decided_by == "INVALID, leaked, RST, ECONNRESET"
    assert decide(timeline(dropped=1)).decided_by == "INVALID, 1 dropped by rule"


def test_what_conntrack_itself_drops_needs_no_witness():
    seen = timeline(judged=(), counters=Counters({}, {"drop": 1}, None), complete=False)
    verdict = decide(seen)
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.STALLED, None, ())


def test_counters_of_conntrack_that_moved_are_part_of_the_verdict():
    counted = Counters({}, {"insert_failed": 1, "drop": 1, "found": 7}, None)
    verdict = decide(timeline(ends=(), injected=None, refusal="the SYN came to no server", judged=(), counters=counted))
    assert verdict.because == (
        "no connection: the SYN came to no server",
        "conntrack's counters: insert_failed 1, drop 1",
    )


def test_a_drop_for_being_invalid_is_no_reason_for_a_packet_that_was_accepted():
    counted = Counters({"invalid": 1}, {"invalid": 1}, 1, ("node: -A FORWARD -j DROP counted 1",))
    seen = timeline(state="established", reason="", counters=counted)
    assert decide(seen).because[0] == "ended at server: node: -A FORWARD -j DROP counted 1"


def test_a_reset_that_answers_something_else_resets_but_is_not_put_down_to_a_leak():
    other = dataclasses.replace(RESET, packet=packet(CLIENT, POD, RST, sequence=999))
    seen = timeline(TRANSLATED, other, state="established", reason="", errors=("ECONNRESET", None))
    assert decide(seen).outcome is Outcome.LOST


def test_a_fin_that_ended_the_connection_killed_it():
    fin = packet(POD, CLIENT, FIN | ACK)
    injected = Injected("server", "client", fin, True, 0, 64512, 16, nodes=("node",))
    arrived = Sighting(30, "client", "eth0", False, dataclasses.replace(fin, source=VIP))
    judged = (Judged("node", 20, fin, "established", ""),)
    seen = timeline(
        arrived, RESET, injected=injected, judged=judged, errors=("ECONNRESET", None), counters=Counters({}, {}, None)
    )
    verdict = decide(seen)
    assert (verdict.outcome, verdict.because[0]) == (Outcome.KILLED, "FIN, server's ECONNRESET")


def test_a_healthy_connection_is_connected():
    verdict = decide(timeline(injected=None, judged=(), counters=Counters({}, {}, None)))
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (Outcome.CONNECTED, None, ())


def test_what_the_model_expects_is_held_against_the_word_of_the_same_node():
    predictions = {"node": Prediction(Judgement.INVALID), "other": Prediction(Judgement.ACCEPTED)}
    injected = dataclasses.replace(timeline().injected, predictions=predictions)
    assert decide(timeline(dropped=1, injected=injected)).disagreements == ()
    wrong = dataclasses.replace(injected, predictions={"node": Prediction(Judgement.ACCEPTED)})
    assert decide(timeline(dropped=1, injected=wrong)).disagreements == (
        "by the model of conntrack at node expected accepted, and it judged INVALID",
    )


@pytest.mark.parametrize(
    ("state", "from_client", "judgement"),
    [("SYN_SENT", True, Judgement.INVALID), ("SYN_SENT", False, Judgement.IGNORED), ("ESTABLISHED", True, None)],
)
def test_the_table_of_states_decides_before_the_window(state, from_client, judgement):
    predicted = by_state(state, from_client=from_client)
    assert (predicted.judgement if predicted else None) is judgement


KILLER = packet(POD, CLIENT, RST, sequence=5000)


def killing(error="ECONNRESET", source=VIP):
    injected = Injected("server", "client", KILLER, True, 0, 64512, 16, nodes=("node",))
    arrived = Sighting(30, "client", "eth0", False, dataclasses.replace(KILLER, source=source))
    judged = (Judged("node", 20, KILLER, "established", ""),)
    return timeline(
        arrived, injected=injected, judged=judged, errors=(None, error), counters=Counters({}, {}, None), complete=False
    )


def test_a_reset_that_is_itself_the_judged_packet_kills():
    verdict = decide(killing())
    assert (verdict.outcome, verdict.because) == (
        Outcome.KILLED,
        ("RST, client's ECONNRESET", "server socket without error, client socket ECONNRESET"),
    )


def test_a_reset_kills_only_whose_socket_it_reset_and_only_where_it_was_translated():
    assert decide(killing(error="EPIPE")).outcome is Outcome.LOST
    assert decide(killing(source=POD)).outcome is Outcome.LOST
    assert decide(killing(error=None)).outcome is Outcome.STALLED


def test_a_killed_connection_is_not_said_to_have_outlived_an_exact_reset():
    exact = Sighting(50, "server", "eth0", False, packet(CLIENT, POD, RST, sequence=16))
    counted = {"judged": (*killing().judged, Judged("node", 45, exact.packet, "established", "")), "complete": False}
    seen = dataclasses.replace(killing(), sightings=(*killing().sightings, exact), **counted)
    verdict = decide(seen)
    assert (verdict.outcome, verdict.disagreements) == (Outcome.KILLED, ())


def test_an_error_message_kills_no_socket_by_itself():
    error = Packet(POD, CLIENT, ICMP, 1, 0, None, IcmpHeader(3, 4))
    arrived = Sighting(30, "client", "eth0", False, dataclasses.replace(error, source=VIP))
    seen = timeline(
        arrived,
        injected=Injected("server", "client", error, True, None, 0, 16, nodes=("node",)),
        judged=(Judged("node", 20, error, "related", ""),),
        counters=Counters({}, {}, None),
        errors=(None, "ECONNRESET"),
    )
    assert decide(seen).outcome is Outcome.LOST


def test_what_comes_to_a_bystander_has_leaked_wherever_its_addresses_lead():
    seen = timeline(Sighting(30, "outside", "eth0", False, FORGED), bystanders=("outside",))
    assert decide(seen).outcome is Outcome.LEAKED
    as_if_it_were_the_client = Sighting(30, "outside", "eth0", False, TRANSLATED.packet)
    assert decide(timeline(as_if_it_were_the_client, bystanders=("outside",))).outcome is Outcome.LEAKED
    on_the_way = timeline(Sighting(30, "router", "eth0", False, FORGED), dropped=1, bystanders=("outside",))
    assert decide(on_the_way).outcome is Outcome.DROPPED


def test_what_a_node_sends_to_its_own_socket_counts_as_come_and_what_its_interface_shows_does_not():
    injected = dataclasses.replace(timeline().injected, receiver="node")
    ends = (dataclasses.replace(timeline().ends[0], host="node"), timeline().ends[1])
    at_node = {"injected": injected, "client": "node", "ends": ends}
    on_interface = Sighting(30, "node", "eth0", False, FORGED)
    assert decide(timeline(on_interface, dropped=1, **at_node)).outcome is Outcome.DROPPED
    local = dataclasses.replace(on_interface, interface=LOCAL)
    assert decide(timeline(local, **at_node)).outcome is Outcome.LEAKED


def test_a_packet_without_ports_is_translated_by_its_addresses():
    error = Packet(POD, CLIENT, ICMP, 1, 0, None, IcmpHeader(3, 4))
    injected = Injected("server", "client", error, True, None, 0, 16, nodes=("node",))
    judged = (Judged("node", 20, error, "related", ""),)
    for source, outcome in ((VIP, Outcome.DELIVERED), (POD, Outcome.LEAKED)):
        came = dataclasses.replace(error, source=SocketAddress(source.address, 0))
        seen = timeline(
            Sighting(30, "client", "eth0", False, came),
            injected=injected,
            judged=judged,
            counters=Counters({}, {}, None),
        )
        assert decide(seen).outcome is outcome


LATER = packet(POD, CLIENT, ACK, sequence=6000, acknowledgement=25)
LATER_LEAKED = Sighting(60, "client", "eth0", False, LATER)
LATER_RESET = Sighting(80, "server", "eth0", False, packet(CLIENT, POD, RST, sequence=25))


def harmless(*sightings, **more):
    """A judged packet that came to the client as it should, and whatever came later."""
    counted = {"counters": Counters({}, {}, None), "state": "established", "reason": ""}
    return timeline(TRANSLATED, *sightings, **{**counted, **more})


def test_a_later_packet_that_leaked_resets_and_is_told_from_the_judged_one():
    verdict = decide(harmless(LATER_LEAKED, LATER_RESET, errors=("ECONNRESET", None)))
    assert (verdict.outcome, verdict.because) == (
        Outcome.RESET,
        ("a later packet leaked, RST, ECONNRESET", "server socket ECONNRESET, client socket without error"),
    )


@pytest.mark.parametrize(
    "later",
    [
        dataclasses.replace(LATER_LEAKED, packet=dataclasses.replace(LATER, source=VIP)),  # it was translated
        dataclasses.replace(LATER_LEAKED, outgoing=True),  # it was not come yet
        dataclasses.replace(LATER_LEAKED, time=90),  # it came after the reset
        dataclasses.replace(LATER_LEAKED, host="node"),  # its interface is before its translation
        dataclasses.replace(LATER_LEAKED, host="router"),  # nobody's end
        dataclasses.replace(LATER_LEAKED, packet=packet(CLIENT, POD, ACK, acknowledgement=25)),  # not the victim's own
        dataclasses.replace(
            LATER_LEAKED, packet=packet(POD, CLIENT, PSH, acknowledgement=25)
        ),  # it acknowledges nothing
        dataclasses.replace(LATER_LEAKED, host="server"),  # it came to the victim itself
        dataclasses.replace(LATER_LEAKED, host="outside"),  # no bystander of this trial
        dataclasses.replace(LATER_LEAKED, packet=dataclasses.replace(LATER, tcp=None)),  # no segment
        dataclasses.replace(LATER_LEAKED, packet=packet(POD, CLIENT, ACK, sequence=6000, acknowledgement=24)),
    ],
    ids=["translated", "leaving", "after", "node", "router", "other", "no-ack", "victim", "outside", "udp", "number"],
)
def test_what_did_not_leak_before_it_has_reset_nothing(later):
    seen = sorted((TRANSLATED, later, LATER_RESET), key=lambda one: one.time)
    assert decide(harmless(*seen[1:], errors=("ECONNRESET", None))).outcome is Outcome.LOST


def test_a_leak_to_the_nodes_own_socket_counts_as_one():
    local = dataclasses.replace(LATER_LEAKED, host="node", interface=LOCAL)
    assert decide(harmless(local, LATER_RESET, errors=("ECONNRESET", None))).outcome is Outcome.RESET


def test_a_leak_to_a_bystander_counts_as_one():
    strayed = dataclasses.replace(LATER_LEAKED, host="outside")
    seen = harmless(strayed, LATER_RESET, errors=("ECONNRESET", None), bystanders=("outside",))
    assert decide(seen).outcome is Outcome.RESET


@pytest.mark.parametrize(
    "answer",
    [
        dataclasses.replace(LATER_RESET, host="node"),  # it did not come to the victim
        dataclasses.replace(LATER_RESET, outgoing=True),  # it is the victim's own
        dataclasses.replace(LATER_RESET, packet=packet(CLIENT, POD, ACK, sequence=25)),  # it is no reset
        dataclasses.replace(LATER_RESET, packet=packet(VIP, POD, RST, sequence=25)),  # it is somebody else's
    ],
    ids=["node", "leaving", "no-reset", "other"],
)
def test_only_a_reset_that_came_to_the_victim_from_its_peer_reset_it(answer):
    assert decide(harmless(LATER_LEAKED, answer, errors=("ECONNRESET", None))).outcome is Outcome.LOST


PEER = SocketAddress("10.0.1.1", 40000)  # the client, as the server knows it behind a node that masquerades


@pytest.mark.parametrize(
    ("source", "destination", "outcome"),
    [
        (CLIENT, POD, Outcome.RESET),
        (PEER, VIP, Outcome.RESET),
        (PEER, POD, Outcome.LOST),
        (SocketAddress("10.0.0.9", 34567), POD, Outcome.LOST),
    ],
    ids=["not-masqueraded", "not-to-the-pod", "translated", "another-client"],
)
def test_a_client_is_reset_by_what_leaked_of_its_own(source, destination, outcome):
    asked = packet(CLIENT, VIP, PSH | ACK, length=7)
    seen = timeline(
        Sighting(30, "server", "eth0", False, dataclasses.replace(asked, source=PEER, destination=POD)),
        Sighting(60, "server", "eth0", False, packet(source, destination, ACK, sequence=6000, acknowledgement=25)),
        Sighting(80, "client", "eth0", False, packet(VIP, CLIENT, RST, sequence=25)),
        injected=Injected("client", "server", asked, True, 0, 64512, 16, nodes=("node",)),
        judged=(Judged("node", 20, asked, "established", ""),),
        counters=Counters({}, {}, None),
        peer_address=PEER,
        errors=(None, "ECONNRESET"),
    )
    assert decide(seen).outcome is outcome


@pytest.mark.parametrize("error", ["ETIMEDOUT", "EOF", None])
def test_only_a_socket_that_was_reset_was_reset(error):
    seen = harmless(LATER_LEAKED, LATER_RESET, errors=(error, "ECONNRESET"))
    assert decide(seen).outcome is Outcome.LOST


def test_a_standstill_is_what_became_of_it_unless_a_socket_failed():
    told = ("half open: client is connected, server is not", "the ACK came to node and no further")
    assert decide(timeline(standstill=told, complete=False)).because == told
    failed = decide(timeline(LEAKED, RESET, standstill=told, errors=("ECONNRESET", None)))
    assert failed.outcome is Outcome.RESET


@pytest.mark.parametrize("missing", [0, 1])
def test_without_one_of_the_sockets_there_was_no_connection(missing):
    seen = timeline(ends=(timeline().ends[missing],), refusal="the SYN,ACK never came back", trace="it left server")
    verdict = decide(seen)
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.because == ("no connection: the SYN,ACK never came back", "it left server")


def test_how_both_sockets_ended_is_told():
    assert decide(timeline(LEAKED, complete=False)).because == (
        "server socket without error, client socket without error",
    )
    assert decide(timeline(LEAKED, errors=("EPIPE", "ETIMEDOUT"))).because[-1] == (
        "server socket EPIPE, client socket ETIMEDOUT"
    )


def test_a_packet_alone_is_decided_without_sockets():
    nobody = {"ends": (), "complete": True}
    assert of_packet.decide(timeline(LEAKED, **nobody)).outcome is Outcome.LEAKED
    unjudged = {"injected": None, "judged": (), "counters": Counters({}, {}, None), "ends": ()}
    assert of_packet.decide(timeline(**unjudged, complete=True)).outcome is Outcome.CONNECTED
    assert of_packet.decide(timeline(**unjudged, complete=False)).outcome is Outcome.STALLED
    refused = of_packet.decide(timeline(**unjudged, complete=True, refusal="ENETUNREACH"))
    assert (refused.outcome, refused.because) == (Outcome.REFUSED, ("no connection: ENETUNREACH",))


def test_only_checks_that_do_not_hold_are_told():
    checks = (Check("one thing", True), Check("another", False, "a third"), Check("a fourth", False))
    found = decide(timeline(dropped=1, checks=checks)).disagreements
    assert found == ("expected another, but it is a third", "expected a fourth")


def test_where_a_packet_ended_is_told_only_of_one_that_came_to_nobody():
    assert lost_where(timeline(dropped=1)) == "1 dropped by rule"
    assert lost_where(timeline(LEAKED)) is None
    assert lost_where(timeline(injected=None)) is None


def test_where_an_error_says_that_there_is_no_way_that_is_where_it_ended():
    error = Packet(SocketAddress("10.0.1.1", 0), POD, ICMP, 2, 0, None, IcmpHeader(3, 1, (POD, CLIENT)))
    told = Sighting(40, "server", "eth0", False, error)
    verdict = decide(timeline(told, dropped=0))
    assert (verdict.outcome, verdict.because[0]) == (Outcome.DROPPED, "ICMP unreachable from 10.0.1.1")
    assert verdict.disagreements == ()  # no rule has to have dropped it


def test_without_a_judged_packet_nothing_has_leaked():
    assert of_packet.leaked(timeline(LEAKED, injected=None)) is None


def test_what_no_node_judged_and_conntrack_counted_is_put_down_to_conntrack():
    full = Counters({}, {"drop": 1}, None)
    assert decide(timeline(judged=(), counters=full)).because[0] == "ended at server: conntrack's drop 1"
    judged = decide(timeline(state="new", reason="", counters=full)).because[0]
    assert judged == "ended at server, and no rule that counts has dropped it"


def test_a_packet_whose_entry_was_not_inserted_is_lost_where_it_ended():
    came = Sighting(15, "node", "server", False, FORGED)
    failed = Counters({}, {"insert_failed": 1, "drop": 1}, None)
    new = {"state": "new", "reason": "", "sightings": (came,)}
    lost = of_packet.decide(timeline(**new, counters=failed))
    assert (lost.outcome, lost.judgement) == (Outcome.LOST, Judgement.NEW)
    assert lost.because[0] == "ended at node: conntrack's insert_failed 1, drop 1"
    by_rule = dataclasses.replace(failed, other_drops=("a rule counted 1",))
    gone_on = (came, dataclasses.replace(came, time=25, interface="client", outgoing=True))
    for other in (
        {"counters": Counters({}, {"drop": 1}, None)},
        {"counters": by_rule},
        {"state": "established"},
        {"sightings": (*gone_on, dataclasses.replace(came, host="router", time=26))},
    ):
        assert of_packet.decide(timeline(**{**new, "counters": failed, **other})).outcome is Outcome.DROPPED, other


def test_a_reset_with_the_exact_number_that_the_connection_outlived_is_pointed_out_of_that_number_alone():
    words = "a reset with the exact number reached the server, and yet its socket lives"
    near = dataclasses.replace(RESET, packet=packet(CLIENT, POD, RST, sequence=17))
    assert words in decide(timeline(LEAKED, RESET)).disagreements
    assert words not in decide(timeline(LEAKED, near)).disagreements
    dead = decide(timeline(LEAKED, RESET, errors=("ETIMEDOUT", None)))
    assert words not in dead.disagreements
