"""Datagrams in captures: who answered, who did not, and what ICMP says; from one point and from several."""

import io

import pytest

from lab.capture.explain import explain
from lab.capture.explanation import Counted
from lab.capture.reader import Reader
from lab.evidence.packet import ACK, SYN
from lab.verdict import Outcome
from lab.vocabulary import Behaviour
from tests.support.captures import MOMENT, icmp, linked, pcap, tcp, udp

CLIENT, VIP, POD, OTHER = ("10.0.0.2", 34567), ("10.96.0.10", 53), ("10.0.1.2", 53), ("10.0.3.2", 53)
MICROSECOND = 1000


def explained(*files):
    """Explain captures of which each is a list of (microseconds, packet)."""
    readers = [
        Reader(
            io.BufferedReader(io.BytesIO(pcap([(MOMENT + at * MICROSECOND, data) for at, data in packets]))),
            f"{n}.pcap",
        )
        for n, packets in enumerate(files)
    ]
    return explain(readers, Behaviour.IGNORES_LATE).connections


def only(*files):
    [one] = explained(*files)
    return one


def test_an_exchange_that_is_translated():
    asked, answered = b"\x12\x34 who?", b"\x12\x34 me"
    one = only(
        [(0, udp(CLIENT, VIP, asked, number=1)), (9, udp(VIP, CLIENT, answered, number=2))],
        [(1, udp(CLIENT, POD, asked, number=1)), (8, udp(POD, CLIENT, answered, number=2))],
    )
    assert (one.protocol, one.outcome, one.findings) == ("UDP", Outcome.DELIVERED, ())
    assert (str(one.target), str(one.endpoint), one.packets) == ("10.96.0.10:53", "10.0.1.2:53", 2)


@pytest.mark.parametrize("behind", [True, False])
def test_an_answer_from_a_stranger(behind):
    """Also where the client's side alone was captured."""
    asked, answered = b"\x12\x34 who?", b"\x12\x34 me"
    files = [[(0, udp(CLIENT, VIP, asked, number=1)), (9, udp(POD, CLIENT, answered, number=2))]]
    if behind:
        files.append([(1, udp(CLIENT, POD, asked, number=1)), (8, udp(POD, CLIENT, answered, number=2))])
    one = only(*files)
    assert one.outcome is Outcome.LEAKED
    [leak] = one.findings
    assert leak.kind == "leak"
    which = "packet 2 of 0.pcap" if behind else "packet 2"
    assert f"{which} comes from 10.0.1.2:53, and the client only knows 10.96.0.10:53" in leak.words


def test_the_answer_that_is_missing_is_that_of_its_question():
    """By what both begin with, as DNS numbers its messages."""
    one = only(
        [
            (0, udp(CLIENT, VIP, b"\x00\x01A", number=1)),
            (1, udp(CLIENT, VIP, b"\x00\x02AAAA", number=2)),
            (5, udp(VIP, CLIENT, b"\x00\x02!", number=3)),
        ]
    )
    assert one.outcome is Outcome.LOST
    [missing] = one.findings
    assert [place.number for place in missing.packets] == [1]


def test_two_questions_of_one_socket_of_which_one_is_lost_on_the_node():
    a, aaaa = (udp(CLIENT, VIP, b"\x00\x01A", number=1), udp(CLIENT, VIP, b"\x00\x02AAAA", number=2))
    one = only(
        [(0, a), (1, aaaa), (9, udp(VIP, CLIENT, b"\x00\x01!", number=3))],
        [(2, udp(CLIENT, POD, b"\x00\x01A", number=1)), (8, udp(POD, CLIENT, b"\x00\x01!", number=3))],
    )
    assert one.outcome is Outcome.LOST
    [lost] = one.findings
    assert lost.case == "dns-race-two-endpoints"
    assert "another question left the same socket at the same time" in lost.words


@pytest.mark.parametrize("asked", [VIP, ("10.96.0.10", 5300)])
def test_an_answer_that_does_not_come_back_to_where_it_was_asked_is_lost(asked):
    """Not where another one came, but of DNS, where each question has its own."""
    client, node = [], []
    for at, number in ((0, 1), (5000, 2)):
        question = bytes([0, number]) + b"who?"
        client.append((at, udp(CLIENT, asked, question, number=number)))
        node.append((at + 1, udp(CLIENT, POD, question, number=number)))
        node.append((at + 9, udp(POD, CLIENT, bytes([0, number]) + b"me!", number=number + 10)))
    one = only(client, node)
    assert (one.outcome, str(one.endpoint), len(one.findings)) == (Outcome.LOST, "10.0.1.2:53", 2)
    assert "packet 2 of 0.pcap, 6 bytes: its answer did not come back" in one.findings[1].words
    assert "the answer was seen last as packet 4 of 1.pcap" in one.findings[1].words
    assert [place.number for place in one.findings[1].packets] == [2, 4]
    client.append((5010, udp(asked, CLIENT, b"\x00\x02me!", number=12)))
    assert len(only(client, node).findings) == (1 if asked == VIP else 0)


def test_an_answer_with_which_the_capture_ends_may_have_come():
    client = [(0, udp(CLIENT, VIP, b"\x00\x01A", number=1))]
    node = [(1, udp(CLIENT, POD, b"\x00\x01A", number=1)), (9, udp(POD, CLIENT, b"\x00\x01!", number=2))]
    syn = (99_000, tcp(CLIENT, VIP, SYN, 999, 0))
    assert only(client, node).findings == ()
    assert explained([*client, syn], node)[-1].outcome is Outcome.LOST


def test_an_answer_by_another_way_than_its_question_is_not_lost():
    client = [(0, udp(CLIENT, VIP, b"\x00\x01A", number=1)), (99_000, tcp(CLIENT, VIP, SYN, 999, 0))]
    node = [(1, udp(CLIENT, POD, b"\x00\x01A", number=1))]
    answer = [(9, udp(VIP, CLIENT, b"\x00\x01!", number=2))]
    assert explained(client, node, answer)[-1].findings == ()


def asked_in_turn(*are_answered):
    """Return what is told of questions to an endpoint, one after the other, where the others have no answer."""
    files = [], []
    for number, is_answered in enumerate(are_answered):
        at, begins = number * 5000, bytes([0, number])
        for place, target in enumerate((VIP, POD)):
            files[place].append((at + place, udp(CLIENT, target, begins + b"?", number=2 * number + 1)))
            if is_answered:
                files[place].append((at + 9 - place, udp(target, CLIENT, begins + b"!", number=2 * number + 2)))
    return only(*files).findings


def test_an_endpoint_is_gone_only_where_it_answers_nothing_later():
    [gone] = asked_in_turn(True, False)
    assert ("it may be gone" in gone.words, gone.case) == (True, "stale-udp-entry")
    first, second = asked_in_turn(True, False, True, False)
    assert "10.0.1.2:53, to whom its entry leads, answered others later, so it is there" in first.words
    assert "answered others before, and not all of them" in second.words
    assert (first.case, second.case) == ("", "")


def test_nobody_is_waited_for_where_no_answer_comes_by_nature():
    assert only([(0, udp(CLIENT, ("10.9.9.9", 514), b"<13> a line of a log"))]).findings == ()
    assert only([(0, udp(CLIENT, ("224.0.0.251", 5353), b"mdns"))]).findings == ()
    many = [(at, udp(CLIENT, ("10.9.9.9", 443), bytes([at]) * 9, number=at)) for at in range(9)]
    assert only([*many, (99, udp(("10.9.9.9", 443), CLIENT, b"quic", number=3))]).findings == ()
    assert only(many).outcome is Outcome.LOST


@pytest.mark.parametrize(
    ("family", "kind", "words"),
    [
        (4, (3, 3), "port unreachable"),
        (4, (3, 1), "host unreachable"),
        (6, (1, 4), "port unreachable"),
        (4, (3, 99), "code 99"),
    ],
)
def test_nobody_is_there(family, kind, words):
    number, code = kind
    client, vip = (CLIENT, VIP) if family == 4 else (("fd00::2", 34567), ("fd00::53", 53))
    question = udp(client, vip, b"\x00\x01A")
    one = only([(0, question), (5, icmp(vip[0], client[0], number, code, question))])
    assert one.outcome is Outcome.REFUSED
    [said] = [finding for finding in one.findings if finding.kind == "icmp"]
    assert words in said.words
    assert [place.number for place in said.packets] == [2]


def test_a_packet_that_is_too_big_for_a_link():
    handshake = [
        (0, tcp(CLIENT, VIP, SYN, 999, 0)),
        (1, tcp(VIP, CLIENT, SYN | ACK, 4999, 1000)),
        (2, tcp(CLIENT, VIP, ACK, 1000, 5000)),
    ]
    big = tcp(CLIENT, VIP, ACK, 1000, 5000, bytes(1460), number=5)
    one = only([*handshake, (3, big), (4, icmp("10.96.0.10", "10.0.0.2", 3, 4, big, mtu=1400))])
    [said] = one.findings
    asked = "10.96.0.10 says so of a packet to 10.96.0.10:53"
    assert f"fragmentation needed: {asked}, whose MTU is 1,400 (packet 5)" in said.words
    assert said.case == "icmp-error"


@pytest.mark.parametrize("of_client", [True, False])
def test_an_error_is_missed_on_the_side_alone_whose_packet_it_is_about(of_client):
    """It comes to the server's side here, and there is none that came to the client's."""
    client, server = (
        [
            (at, tcp(CLIENT, target, SYN, 999, 0, number=1)),
            (9 - at, tcp(target, CLIENT, SYN | ACK, 4999, 1000, number=9)),
            (10 + at, tcp(CLIENT, target, ACK, 1000, 5000, number=2)),
        ]
        for at, target in enumerate((VIP, POD))
    )
    ends = (CLIENT, POD) if of_client else (POD, CLIENT)
    big = tcp(*ends, ACK, 1000, 5000, bytes(1460), number=5)
    [said] = only(client, [*server, (20, icmp("10.0.1.1", ends[0][0], 3, 4, big, mtu=1400))]).findings
    assert ("did not come to the client's side" in said.words) == of_client
    assert said.case == ("path-mtu-filtered" if of_client else "icmp-error")


@pytest.mark.parametrize("outgoing", [True, False])
def test_a_syn_that_came_in_and_went_out_nowhere_was_seen_last_there(outgoing):
    syn = linked(tcp(CLIENT, VIP, SYN, 999, 0), 276, outgoing=outgoing)
    read = Reader(io.BufferedReader(io.BytesIO(pcap([(MOMENT, syn)], link=276))), "x")
    [[said]] = [one.findings for one in explain([read], Behaviour.IGNORES_LATE).connections]
    assert said.words.startswith("nobody answers its SYN")
    assert ("came in as packet 1 (interface 7), and was not seen going out" in said.words) != outgoing


def test_an_error_about_what_is_not_there_is_counted():
    read = Reader(
        io.BufferedReader(io.BytesIO(pcap([(MOMENT, icmp("10.0.0.1", "10.0.0.2", 3, 3, udp(CLIENT, VIP, b"?")))]))), "x"
    )
    told = explain([read], Behaviour.IGNORES_LATE)
    assert told.notes == ("ICMP errors about packets that are not there: 1",)


def test_memory_is_bounded_and_what_was_given_up_is_said():
    packets = [
        (MOMENT + port, linked(udp(("10.0.0.2", 1025 + port % 60_000), (f"10.1.0.{port // 60_000}", 9000), b"?"), 1))
        for port in range(20_010)
    ]
    told = explain([Reader(io.BufferedReader(io.BytesIO(pcap(packets, link=1))), "x")], Behaviour.IGNORES_LATE)
    assert told.counted == (Counted("UDP", 10_000, {"unanswered": 10_000}, 10_000),)
    assert len(told.connections) == 10_000
    assert told.connections[0].client.port == 1035  # the first one that was not given up
    assert told.notes[0].startswith("10 exchanges by UDP that came first were given up, to bound memory: 10 of them")
