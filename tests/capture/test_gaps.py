"""Captures that lack packets: what rests on them is not called INVALID, and what is INVALID is found all the same."""

import struct

import pytest

from lab.evidence.packet import ACK, RST, SYN
from lab.verdict import Outcome
from tests.support.captures import MOMENT, pcap, tcp
from tests.support.explaining import explained

CLIENT, VIP = ("10.0.0.2", 34567), ("192.168.0.2", 80)
SCALED = b"\x02\x04\x05\xb4\x01\x03\x03\x07"


def download(pieces, length=1400, options=SCALED):
    """Return a handshake, a question, and an answer in pieces, each acknowledged."""
    made = [
        tcp(CLIENT, VIP, SYN, 1000, 0, options=options),
        tcp(VIP, CLIENT, SYN | ACK, 5000, 1001, options=options),
        tcp(CLIENT, VIP, ACK, 1001, 5001, window=500),
        tcp(CLIENT, VIP, ACK, 1001, 5001, b"question", window=500),
    ]
    for piece in range(pieces):
        made += [
            tcp(VIP, CLIENT, ACK, 5001 + piece * length, 1009, bytes(length), window=500),
            tcp(CLIENT, VIP, ACK, 1009, 5001 + (piece + 1) * length, window=500),
        ]
    return made


def timed(packets):
    return [(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)]


def told_of(packets, **how):
    return explained({"x.pcap": pcap(timed(packets), **how)})


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ((10,), "1,400 bytes of the server before packet 11"),
        ((10, 11, 12), "2,800 bytes of the server before packet 11"),
        (range(8, 180), "120,400 bytes of the server before packet 9"),
        (range(9, 180), "119,000 bytes of the server before packet 10"),
    ],
)
def test_what_follows_a_gap_is_not_invalid(gone, words):
    packets = [packet for number, packet in enumerate(download(100)) if number not in gone]
    told = told_of(packets)
    [one] = told.connections
    assert (one.outcome, one.findings) == (Outcome.CONNECTED, ())
    assert f"the capture has a gap: {words} are not in it" in told.notes[0]


def test_acknowledgements_alone_that_are_missing_are_a_gap():
    whole = download(100)
    packets = whole[:4] + [packet for packet in whole[4:] if packet is whole[-1] or len(packet) > 1000]
    told = told_of(packets)
    assert told.connections[0].findings == ()
    assert "acknowledgements of the client before packet" in told.notes[0]


@pytest.mark.parametrize("far", [10, 5000, 1 << 29])
def test_an_acknowledgement_that_the_connection_does_not_go_on_from_is_invalid(far):
    packets = download(20)
    packets.insert(12, tcp(CLIENT, VIP, ACK, 1009, 5001 + 4 * 1400 + far, window=500))
    told = told_of(packets)
    [one] = told.connections[0].findings
    assert (one.condition, one.packets[0].number) == ("III", 13)
    assert not any("gap" in note for note in told.notes)


@pytest.mark.parametrize("far", [70_000, 1 << 29])
def test_data_that_the_connection_does_not_go_on_from_is_invalid(far):
    packets = download(100)
    packets.insert(12, tcp(VIP, CLIENT, ACK, 5001 + 4 * 1400 + far, 1009, b"forged", window=500))
    told = told_of(packets)
    [one, *_followed] = told.connections[0].findings
    assert (one.condition, one.packets[0].number) == ("I", 13)
    assert not any("gap" in note for note in told.notes)


def test_behind_a_gap_is_judged_as_before_it():
    packets = download(100)
    packets.insert(60, tcp(VIP, CLIENT, ACK, 5001 + 28 * 1400 + (1 << 29), 1009, b"forged", window=500))
    del packets[10:13]
    told = told_of(packets)
    [one] = told.connections[0].findings
    assert (one.condition, one.packets[0].number) == ("I", 58)
    assert "2,800 bytes of the server" in told.notes[0]


@pytest.mark.parametrize("snaplen", [44, 47])
def test_where_the_syns_options_are_cut_nothing_rests_on_the_windows_scale(snaplen):
    """The answer comes in one flight, which only a scaled window has room for."""
    whole = download(40)
    packets = whole[:4] + [packet for packet in whole[4:] if len(packet) > 1000] + whole[-1:]
    assert told_of(packets).connections[0].findings == ()
    assert not any("scaled" in note for note in told_of(packets).notes)
    told = told_of(packets, snaplen=snaplen)
    assert told.connections[0].findings == ()
    [note] = [one for one in told.notes if "scaled" in one]
    assert "options were cut off by the snaplen (tcpdump -s 96 keeps them)" in note


def test_with_options_cut_what_is_too_far_for_any_scale_is_invalid():
    packets = download(20)
    packets.insert(12, tcp(VIP, CLIENT, ACK, 5001 + (1 << 30) + (1 << 29), 1009, window=500))
    [one] = told_of(packets, snaplen=44).connections[0].findings
    assert one.condition == "I"
    assert "by at least " in one.words


def test_bytes_that_are_acknowledged_selectively_and_are_not_there_are_a_gap():
    """The hole before them is filled where the sender is, which denies nothing of what is behind it."""
    packets = download(10, options=SCALED + b"\x04\x02\x01\x01")
    answers = [packet for packet in packets[4:] if packet[12:16] == packets[1][12:16]]
    had, resent, more = answers[:3], answers[3], answers[6:]
    sack = b"\x01\x01\x05\x0a" + struct.pack("!II", 5001 + 4 * 1400, 5001 + 6 * 1400)
    seen = [
        *(*packets[:4], *had, tcp(CLIENT, VIP, ACK, 1009, 5001 + 3 * 1400, window=500, options=sack), resent, *more),
        tcp(CLIENT, VIP, ACK, 1009, 5001 + 10 * 1400, window=500),
    ]
    told = told_of(seen)
    assert told.connections[0].findings == ()
    assert "the capture has a gap: 2,800 bytes of the server before packet 8 are not in it" in told.notes[0]


@pytest.mark.parametrize("far", [10, 5000, 1 << 29])
def test_a_forged_selective_acknowledgement_is_invalid(far):
    packets = download(20, options=SCALED + b"\x04\x02\x01\x01")
    at = 5001 + 4 * 1400
    sack = b"\x01\x01\x05\x0a" + struct.pack("!II", at + far, at + far + 10)
    packets.insert(12, tcp(CLIENT, VIP, ACK, 1009, at, window=500, options=sack))
    told = told_of(packets)
    [one] = told.connections[0].findings
    assert (one.condition, one.packets[0].number) == ("III", 13)
    assert not any("gap" in note for note in told.notes)


def two_sides(extra, *, gone_at):
    """Return what both sides of a download say, with one packet more of the client that one side lacks."""
    packets = [*download(10), extra, *download(12)[-4:]]
    times = {"client.pcap": (0, 100), "server.pcap": (100, 0)}  # us; by who sends
    files = {}
    for file, (of_client, of_server) in times.items():
        here = [
            (
                MOMENT + number * 1_000_000 + 1000 * (of_client if packet[12:16] == packets[0][12:16] else of_server),
                packet,
            )
            for number, packet in enumerate(packets)
            if packet is not extra or file != gone_at
        ]
        files[file] = pcap(sorted(here, key=lambda one: one[0]))
    return explained(files)


@pytest.mark.parametrize("flags", [ACK, RST])
def test_what_is_at_the_far_end_alone_came_as_far(flags):
    """The nearer capture lacks it; of a RST its own finding says that it may be made on the way."""
    extra = tcp(CLIENT, VIP, flags, 1009, 5001 + 10 * 1400 if flags & ACK else 0, window=499)
    told = two_sides(extra, gone_at="client.pcap")
    findings = [finding for one in told.connections for finding in one.findings]
    assert not any(finding.kind == "lost" for finding in findings)
    words = "1 packet of the client captured further on than client.pcap, and not there: 25 of server.pcap: the capture"
    assert any(words in note for note in told.notes) is (flags == ACK)
    assert any("RST 25 of server.pcap" in finding.words for finding in findings) is (flags == RST)


def test_what_is_at_its_senders_side_alone_did_not_come_as_far():
    told = two_sides(tcp(CLIENT, VIP, ACK, 1009, 5001 + 10 * 1400, window=499), gone_at="server.pcap")
    [lost] = told.connections[0].findings
    assert (lost.kind, [place.file for place in lost.packets]) == ("lost", ["client.pcap"])
    assert not any("further on" in note for note in told.notes)
