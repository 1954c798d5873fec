"""What conntrack listed, told and counted beside a capture: joined to the connection that it is about."""

import io

import pytest

from lab.capture.explain import explain
from lab.capture.reader import Reader
from lab.capture.text import Text
from lab.evidence.packet import ACK, RST, SYN
from lab.verdict import Outcome
from lab.vocabulary import Behaviour
from tests.support.captures import MOMENT, pcap, tcp

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
FAR = 2**29
#: Of an entry, with what stands behind each direction.
ENDS = "src=10.0.0.2 dst=192.168.0.2 sport=34567 dport=80 {}src=10.0.1.2 dst=10.0.0.2 sport=80 dport=34567{}"
ENTRY = f"tcp 6 86397 ESTABLISHED {ENDS.format('', ' [ASSURED]')} mark=0 use=1"
OTHERS = "tcp 6 99 ESTABLISHED src=10.0.0.9 dst=10.0.1.9 sport=1 dport=2 src=10.0.1.9 dst=10.0.0.9 sport=2 dport=1"
#: What an endpoint's answer begins.
BEGUN = (
    "tcp 6 290 ESTABLISHED src=10.0.1.2 dst=10.0.0.2 sport=80 dport=34567 [UNREPLIED]"
    " src=10.0.0.2 dst=10.0.1.2 sport=34567 dport=80"
)


def captured(ahead=None, *, answered=True):
    """Return a connection at the client's side; with a number, the endpoint's own answer leaks, so far from the next.

    A millisecond from packet to packet.
    """
    packets = [tcp(CLIENT, VIP, SYN, 999, 0)]
    if answered:
        packets += [
            tcp(VIP, CLIENT, SYN | ACK, 4999, 1000),
            tcp(CLIENT, VIP, ACK, 1000, 5000),
            tcp(CLIENT, VIP, ACK, 1000, 5000, b"?" * 10, number=1),
            tcp(VIP, CLIENT, ACK, 5000, 1010, b"!" * 10, number=2),
            tcp(CLIENT, VIP, ACK, 1010, 5010),
            tcp(CLIENT, VIP, ACK, 1010, 5010, b"?" * 10, number=3),
        ]
    if ahead is not None:
        packets += [tcp(POD, CLIENT, ACK, 5010 + ahead, 1020, b"!", number=4), tcp(CLIENT, POD, RST, 1020, 0)]
    return timed(packets)


def timed(packets):
    """Return the headers alone: what is not all there is not found to have a wrong checksum."""
    return pcap([(MOMENT + at * 10**6, packet) for at, packet in enumerate(packets)], nano=True, snaplen=40)


def told(capture, *lines):
    text = Text(io.BufferedReader(io.BytesIO("\n".join(lines).encode())), "ct.txt")
    reader = Reader(io.BufferedReader(io.BytesIO(capture)), "x.pcap")
    return explain([reader], Behaviour.IGNORES_LATE, [text])


def event(kind, state, milliseconds=None, more="", *, flags=""):
    """Return a line of `conntrack -E`, so long after the capture's first packet; None: without a time."""
    at = f"[{(MOMENT + milliseconds * 10**6) / 1e9:.6f}]\t" if milliseconds is not None else ""
    return f"{at} [{kind}] tcp      6 {state} {ENDS.format(flags, '')}{more}"


LIVED = [("NEW", "120 SYN_SENT", 0), ("UPDATE", "60 SYN_RECV", 1), ("UPDATE", "432000 ESTABLISHED", 2)]


def lived(*, timed=True):
    return [event(kind, state, at if timed else None) for kind, state, at in LIVED]


@pytest.mark.parametrize(
    ("state", "more", "how"),
    [
        ("431999 ESTABLISHED", " [USERSPACE] portid=7 progname=conntrack", "deleted by a program (conntrack)"),
        ("431999 ESTABLISHED", " [USERSPACE] portid=7", "deleted by a program"),
        ("431999 ESTABLISHED", "", "deleted with 431,999 s left"),
        ("ESTABLISHED", "", "expired (its timeout was 432,000 s)"),
        ("", "", "deleted (0.003 s after its timeout was 432,000 s)"),
    ],
)
def test_an_end_before_the_leak_explains_it(state, more, how):
    [one] = told(captured(0), *lived(), event("DESTROY", state, 5, more)).connections
    assert one.outcome is Outcome.RESET
    assert f"and yet not translated: its entry was {how}, by the events; leaked" in one.findings[0].words
    assert one.findings[0].case == ("entry-expired" if "expired" in how else "entry-deleted")
    how += " in line 4"
    assert f"By the events (ct.txt) its entry was made in SYN_SENT, SYN_RECV, ESTABLISHED, {how}." in one.entry
    assert "The end in line 4 was 0.002 s before packet 8: so it found no entry." in one.entry


def test_an_end_after_the_leak_does_not_explain_it():
    [one] = told(captured(0), *lived(), event("DESTROY", "431999 ESTABLISHED", 9)).connections
    assert "At packet 8 it was there, by their times (line 3): the clocks of both differ" in one.entry
    assert "its entry was gone (deleted, or expired), or conntrack did not like" in one.findings[0].words
    [one] = told(captured(0), event("DESTROY", "431999 ESTABLISHED", 9)).connections
    assert "The end in line 1 was after packet 8, by its time: the clocks of both differ" in one.entry


def test_an_entry_that_was_made_anew_before_the_leak_was_there():
    again = [event("DESTROY", "431999 ESTABLISHED", 4), event("NEW", "300 ESTABLISHED", 5)]
    [one] = told(captured(0), *lived(), *again).connections
    assert "At packet 8 it was there, by their times (line 5)" in one.entry


def test_without_times_nothing_is_said_of_before_and_after():
    [one] = told(captured(0), *lived(timed=False), event("DESTROY", "431999 ESTABLISHED")).connections
    assert "That explains packet 8, if it was before it: events without times do not tell" in one.entry
    assert "`conntrack -E -o timestamp`" in one.entry
    [one] = told(captured(0), *lived(), event("DESTROY", "1 ESTABLISHED", 10**9)).connections
    assert "At packet 8 it was there" in one.entry
    [one] = told(captured(0), event("DESTROY", "1 ESTABLISHED", 10**9)).connections
    assert "Their times are of another day than packet 8" in one.entry


def test_events_without_an_end_contradict_a_leak():
    [one] = told(captured(0), *lived()).connections
    assert "They have no end of it, and yet packet 8 was not translated" in one.entry


def test_an_end_while_the_connection_lived_is_said_where_nothing_leaked():
    [one] = told(captured(), *lived(), event("DESTROY", "431999 ESTABLISHED", 20)).connections
    assert "It went while the connection lived (ct.txt, line 4); the capture has no packet behind that" in one.entry
    [one] = told(captured(), *lived(), event("DESTROY", "0 TIME_WAIT", 20)).connections
    assert "while the connection lived" not in one.entry


def test_a_packet_that_is_invalid_needs_no_entry_that_is_gone():
    [one] = told(captured(FAR), *lived(), event("DESTROY", "9 CLOSE", 20)).connections
    assert one.findings[0].kind == "out-of-window"
    assert one.entry.endswith("deleted, or gone for a new SYN, with 9 s left in line 4.")


def test_how_an_entry_ended_is_not_told_where_a_kernel_tells_no_state_and_time_has_passed():
    [one] = told(captured(), *lived(), event("DESTROY", "", 40_000)).connections
    assert "ESTABLISHED, gone (expired, or deleted) in line 4." in one.entry


def test_what_changes_a_flag_alone_is_no_step_of_an_entry_s_life():
    [one] = told(
        captured(), *lived(), event("UPDATE", "300", 3, " [ASSURED]"), event("UPDATE", "9 CLOSE", 4)
    ).connections
    assert one.entry == "By the events (ct.txt) its entry was made in SYN_SENT, SYN_RECV, ESTABLISHED, CLOSE."


def test_of_several_connections_on_one_port_each_has_the_events_of_its_own():
    packets = [tcp(CLIENT, VIP, SYN, 999, 0), tcp(VIP, CLIENT, RST | ACK, 0, 1000), tcp(CLIENT, VIP, SYN, 77_999, 0)]
    lines = [event(*one) for one in (("NEW", "120 SYN_SENT", 0), ("DESTROY", "9 CLOSE", 2), ("NEW", "120 SYN_SENT", 2))]
    first, second = (one.entry for one in told(timed(packets), *lines).connections)
    assert first.startswith("By the events (ct.txt) its entry was made in SYN_SENT, deleted, or gone")
    assert second == "By the events (ct.txt) its entry was made in SYN_SENT."


def test_events_of_others_are_none_of_this_one():
    [one] = told(captured(0), f"[1.0] [DESTROY] {OTHERS}").connections
    assert one.entry == "ct.txt has no event of its entry."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (OTHERS, "ct.txt has no entry of it: it was gone when they were listed, or not begun; that fits a packet that"),
        (ENTRY, "So it was there when it was listed, and not for packet 8: it was gone before, or is a new one."),
        (
            ENTRY.replace("dport=80 src", "dport=80 [UNREPLIED] src"),
            "It has seen no answer, and the capture has: that one was made anew, or answers go another way.",
        ),
        (
            BEGUN,
            "An answer of 10.0.1.2:80 has begun an entry (ct.txt, line 1): it found none, and went out untranslated.",
        ),
    ],
)
def test_a_listing_is_held_against_a_leak(line, words):
    [one] = told(captured(0), line).connections
    assert words in one.entry


def test_an_entry_of_another_endpoint_contradicts_the_capture():
    both = timed([tcp(CLIENT, there, SYN, 999, 0) for there in (VIP, POD)])
    [one] = told(both, ENTRY.replace("10.0.1.2", "10.0.1.7")).connections
    assert "That contradicts the capture, in which 10.0.1.2:80 answers" in one.entry
    assert "contradicts" not in told(both, ENTRY).connections[0].entry


def test_of_a_connection_that_is_well_no_entry_is_missed():
    [one] = told(captured(), OTHERS).connections
    assert (one.findings, one.entry) == ((), "")


def further(found, name):
    return [words for one in found.remarks if one.words.startswith(name) for words in (one.words, *one.further)]


def test_counters_are_held_against_the_capture():
    found = told(captured(FAR), "cpu=0 found=0 invalid=2 insert=0 insert_failed=0 drop=0 early_drop=0")
    assert further(found, "invalid")[1:] == ["That fits the captures: INVALID are 8."]
    none = told(captured(FAR), "cpu=0 found=0 invalid=0 insert=0 insert_failed=0 drop=0 early_drop=0")
    assert "and yet the captures have packets that are INVALID (8)" in further(none, "invalid is 0")[0]
    same = ["cpu=0 found=0 invalid=7 insert=0 insert_failed=0 drop=0 early_drop=0"] * 2
    assert "and yet the captures have packets" in further(told(captured(FAR), *same), "invalid has not grown")[0]
    assert not further(told(captured(), *same), "invalid has not grown")


def test_a_counter_that_may_be_why_nobody_answers_is_named():
    line = "cpu=0 found=0 invalid=0 insert=0 insert_failed=1 drop=1 early_drop=0"
    for name in ("insert_failed", "drop"):
        words = further(told(captured(answered=False), line), name)[1:]
        assert words
        assert "may be why 10.0.0.2:34567 > 192.168.0.2:80 has no answer" in words[0]
        assert not further(told(captured(), line), name)[1:]
