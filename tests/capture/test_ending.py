"""By which RSTs a connection ends: whose they are, and what they kill."""

import pytest

from lab.evidence.packet import ACK, FIN, RST, SYN
from lab.verdict import Outcome
from tests.support.captures import MOMENT, linked, pcap, tcp
from tests.support.explaining import explained

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"

#: (from the client, flags, sequence number, acknowledged, payload)
ASKED, GRANTED = (True, SYN, 999, 0, b""), (False, SYN | ACK, 4999, 1000, b"")
QUESTION, GOT = (True, ACK, 1000, 5000, b"?" * 10), (False, ACK, 5000, 1010, b"")
ANSWER, READ = (False, ACK, 5000, 1010, b"!" * 10), (True, ACK, 1010, 5010, b"")
SHAKEN = [ASKED, GRANTED, (True, ACK, 1000, 5000, b"")]
BY_CLIENT, BY_SERVER = (True, RST | ACK, 1010, 5010, b""), (False, RST | ACK, 5010, 1010, b"")


def packet(number, by_client, flags, sequence, acknowledged, payload, *, server=VIP, window=64240):
    source, target = (CLIENT, server) if by_client else (server, CLIENT)
    options = OPTIONS if flags & SYN else b""
    return tcp(source, target, flags, sequence, acknowledged, payload, number=number, options=options, window=window)


def at_client(*segments, closed=()):
    """Return a capture of segments at the client; those whose place is in ``closed`` have a window of 0."""
    packets = [packet(at + 1, *one, window=0 if at in closed else 64240) for at, one in enumerate(segments)]
    return {"x": pcap([(MOMENT + at * 1000, one) for at, one in enumerate(packets)], nano=True)}


def resets(one):
    return [finding for finding in one.findings if finding.kind == "reset"]


@pytest.mark.parametrize(
    ("segments", "closed", "outcome"),
    [
        ([QUESTION, GOT, ANSWER, READ, BY_CLIENT], (), "connected"),  # as a client closes by SO_LINGER
        ([QUESTION, GOT, ANSWER, READ, BY_SERVER], (), "connected"),
        ([QUESTION, GOT, ANSWER, READ, (True, RST, 1010, 5010, b"")], (), "killed"),
        ([QUESTION, GOT, ANSWER, BY_CLIENT], (), "connected"),  # the RST acknowledges it
        ([QUESTION, GOT, ANSWER, (True, ACK, 1010, 5010, b"more"), (True, RST | ACK, 1014, 5010, b"")], (), "killed"),
        ([QUESTION, GOT, (False, RST | ACK, 5000, 1010, b"")], (), "killed"),  # nobody answered, nor need have read
        ([QUESTION, GOT, (True, RST | ACK, 1010, 5000, b"")], (), "killed"),
        ([QUESTION, GOT, (False, FIN | ACK, 5000, 1010, b""), (True, RST | ACK, 1010, 5001, b"")], (), "connected"),
        ([QUESTION, GOT, ANSWER, READ, (False, ACK, 5010, 1010, b""), BY_SERVER], (7,), "killed"),  # a zero window
    ],
)
def test_a_reset_kills_unless_the_server_had_the_last_word(segments, closed, outcome):
    [one] = explained(at_client(*SHAKEN, *segments, closed=closed)).connections
    assert one.outcome == outcome
    [found] = resets(one)
    assert ("an end as programs make it" in found.words) is (outcome == "connected")
    assert ("zero window" in found.words) is bool(closed)
    assert "nothing is lost" not in found.words


@pytest.mark.parametrize("acks", [1, 200])
def test_who_spoke_last_is_known_behind_any_number_of_acknowledgements(acks):
    """Plain segments are taken by a look at them, and the last ones alone are kept."""
    sent = [(False, ACK, 5000 + at * 10, 1010, b"!" * 10) for at in range(acks)]
    read = [(True, ACK, 1010, 5010 + at * 10, b"") for at in range(acks)]
    end = (True, RST | ACK, 1010, 5000 + acks * 10, b"")
    [one] = explained(at_client(*SHAKEN, QUESTION, *sent, *read, end)).connections
    assert one.outcome is Outcome.CONNECTED


def copies(*segments):
    """Return what `-i any` on the node has: a copy where each segment comes in, and one where it goes out.

    A segment with a way behind it has that copy alone.
    """
    frames = []
    for number, (by_client, *rest) in enumerate(segments, 1):
        ways = [one for one in rest if isinstance(one, str)]
        numbers = [one for one in rest if not isinstance(one, str)]
        for way, server, index in (("in", VIP, 2), ("out", POD, 3)) if by_client else (("in", POD, 3), ("out", VIP, 2)):
            if way in (ways or ("in", "out")):
                data = packet(number, by_client, *numbers, server=server)
                frames.append(linked(data, 276, outgoing=way == "out", index=index))
    return {"any": pcap([(MOMENT + at * 1000, one) for at, one in enumerate(frames)], link=276, nano=True)}


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("way", ["both", "out"])
def test_a_reset_that_only_goes_out_the_node_sent_itself(side, way):
    by_client = side == "client"
    reset = (by_client, RST, 1010 if by_client else 5010, 0, b"", *(["out"] if way == "out" else []))
    [one] = explained(copies(*SHAKEN, QUESTION, ANSWER, READ, reset)).connections
    assert one.outcome is Outcome.KILLED
    [found] = resets(one)
    assert (f"the {side} resets" in found.words) is (way == "both")
    assert ("sent it itself at interface" in found.words) is (way == "out")
    assert bool(found.case) is (way == "both")
    assert not [finding for finding in one.findings if finding.kind == "lost"]


def test_an_end_s_own_reset_is_told_behind_one_of_the_node():
    node_s = (True, RST, 1010, 0, b"", "out")
    answer = (False, ACK, 5000, 1010, b"!" * 10, "in")
    [one] = explained(copies(*SHAKEN, QUESTION, answer, node_s, (True, RST | ACK, 1010, 5000, b""))).connections
    assert [("in the client's name" in found.words) for found in resets(one)] == [True, False]


def test_a_reset_that_answers_a_syn_and_only_goes_out_is_the_node_s():
    [one] = explained(copies((*ASKED, "in"), (False, RST | ACK, 0, 1000, b"", "out"))).connections
    assert one.outcome is Outcome.REFUSED
    assert "the machine that captured sent it itself" in one.findings[0].words
    assert "server refuses" not in one.findings[0].words


def test_a_reset_that_its_supposed_sender_s_side_lacks_was_made_between():
    segments = [*SHAKEN, QUESTION, ANSWER, READ, (False, RST, 5010, 0, b"")]
    files = {}
    for name, server, passed in (("client.pcap", VIP, segments), ("server.pcap", POD, segments[:-1])):
        by_client = server is VIP
        times = [MOMENT + at * 1000 + 300 * (one[0] is not by_client) for at, one in enumerate(passed)]
        packets = [packet(at, *one, server=server) for at, one in enumerate(passed, 1)]
        files[name] = pcap(list(zip(times, packets, strict=True)), nano=True)
    [found] = resets(explained(files).connections[0])
    assert "in the server's name" in found.words
    assert "server.pcap, where the server's packets come by first, has none of it" in found.words


@pytest.mark.parametrize("again", [0, 1, 4])
def test_a_fin_that_is_sent_again_is_told(again):
    fin = (True, FIN | ACK, 1010, 5000, b"")
    [one] = explained(at_client(*SHAKEN, QUESTION, GOT, *[fin] * (again + 1))).connections
    assert [finding.kind for finding in one.findings] == ["retransmission"] * bool(again)
    assert all("not acknowledged" in finding.words for finding in one.findings)
    assert one.outcome is (Outcome.STALLED if again > 1 else Outcome.CONNECTED)


def test_what_is_sent_again_and_acknowledged_ends_well():
    fin, theirs = (True, FIN | ACK, 1010, 5000, b""), (False, FIN | ACK, 5000, 1011, b"")
    [one] = explained(
        at_client(*SHAKEN, QUESTION, GOT, fin, fin, fin, theirs, (True, ACK, 1011, 5001, b""))
    ).connections
    assert one.outcome is Outcome.CONNECTED
    assert "not acknowledged" not in one.findings[0].words


def test_a_reset_behind_a_fin_that_nobody_acknowledged_is_told():
    """By conntrack's table the client's next packet acknowledges the FIN, whatever number it has."""
    answer, fin = (False, ACK, 5000, 1010, b"!" * 10), (False, FIN | ACK, 5010, 1010, b"")
    last = (False, RST, 5000, 0, b"")
    [one] = explained(at_client(*SHAKEN, QUESTION, answer, fin, QUESTION, fin, QUESTION, last)).connections
    assert one.outcome is Outcome.KILLED
    assert len(resets(one)) == 1


def test_a_reset_behind_an_end_that_was_acknowledged_is_none():
    fin, theirs = (True, FIN | ACK, 1010, 5000, b""), (False, FIN | ACK, 5000, 1011, b"")
    late = (False, RST, 5001, 0, b"")
    segments = [*SHAKEN, QUESTION, GOT, fin, theirs, (True, ACK, 1011, 5001, b""), late]
    assert not explained(at_client(*segments)).found


@pytest.mark.parametrize(
    ("again", "words"),
    [
        ([GRANTED, ASKED, GRANTED], "the client does not get the answer to its SYN, and sends that again"),
        ([ASKED], "the client does not get the answer to its SYN, and sends that again"),
        ([GRANTED, GRANTED], "nothing of the client follows the answer to its SYN, which is sent again"),
    ],
)
def test_a_handshake_that_is_never_done_stands_still(again, words):
    [one] = explained(at_client(ASKED, GRANTED, *again)).connections
    assert one.outcome is Outcome.STALLED
    [found] = [finding for finding in one.findings if finding.kind == "unanswered"]
    assert words in found.words
    assert "seen last as packet 2" in found.words
    assert not {finding.case for finding in one.findings} - {""}


def test_an_answer_that_comes_in_and_goes_out_nowhere_never_comes_to_the_client():
    gone = (*GRANTED, "in")
    [one] = explained(copies(ASKED, gone, gone, ASKED, gone)).connections
    assert one.outcome is Outcome.STALLED
    assert any("not translated back: it leaked, or was dropped" in finding.words for finding in one.findings)


def test_a_handshake_that_is_done_after_all_is_delivered():
    [one] = explained(at_client(ASKED, GRANTED, GRANTED, ASKED, GRANTED, *SHAKEN[2:], QUESTION, GOT)).connections
    assert one.outcome is Outcome.DELIVERED
