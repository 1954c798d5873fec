"""Captures that begin or end in the middle of a connection, on all interfaces of a node: no cause is made up."""

import pytest

from lab.evidence.packet import ACK, PSH, RST, SYN
from lab.verdict import Outcome
from tests.support.captures import MOMENT, linked, pcap, tcp
from tests.support.explaining import explained

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"
FAR = 1 << 29


def hops(index, source, destination, *rest, behind=None, **how):
    """Return a packet at both interfaces of a node: as it comes in, and as it goes out with other addresses."""
    after = behind or (source, destination)
    return [
        linked(tcp(source, destination, *rest, **how), 276, outgoing=False, index=index),
        linked(tcp(*after, *rest, **how), 276, index=7 - index),
    ]


def ask(*rest, **how):
    return hops(3, CLIENT, VIP, *rest, behind=(CLIENT, POD), **how)


def answer(*rest, **how):
    return hops(4, POD, CLIENT, *rest, behind=(VIP, CLIENT), **how)


#: A connection by the VIP in which a packet far out of the window leaks and is reset.
WHOLE = [
    *ask(SYN, 1000, 0, options=OPTIONS),
    *answer(SYN | ACK, 5000, 1001, options=OPTIONS),
    *ask(ACK, 1001, 5001),
    *ask(ACK | PSH, 1001, 5001, b"question"),
    *answer(ACK, 5001, 1009),
    *answer(ACK | PSH, 5001, 1009, bytes(1000)),
    *ask(ACK, 1009, 6001),
    *hops(4, POD, CLIENT, ACK | PSH, 6001 + FAR, 1009, b"forged!" * 20),
    *hops(3, CLIENT, POD, RST, 1009, 0, window=0),
    *ask(ACK | PSH, 1009, 6001, b"question 2"),
    *answer(RST, 6001, 0, window=0),
]


def part(first, last):
    """Return what is told of the packets from one number to another, as `editcap -r` leaves them."""
    packets = [(MOMENT + number * 10_000, data) for number, data in enumerate(WHOLE[first - 1 : last])]
    return explained({"x.pcap": pcap(packets, link=276, snaplen=90)})


def test_the_whole_is_told_with_its_cause():
    [one] = part(1, 22).connections
    assert one.findings[0].case == "beyond-window"


def test_what_begins_with_the_outgoing_copy_of_the_syn_is_told_with_its_cause():
    [one] = part(2, 22).connections
    assert (one.target.address, one.endpoint.address) == (VIP[0], POD[0])
    assert one.outcome is Outcome.RESET
    assert [finding.case for finding in one.findings] == ["beyond-window"]


def test_a_syn_that_is_sent_again_as_it_was_asked_is_of_the_same_connection():
    """Of the first one the capture has the outgoing copy alone."""
    again = ask(SYN, 1000, 0, options=OPTIONS, number=2)
    packets = [(MOMENT + number * 10_000, data) for number, data in enumerate((WHOLE[1], *again, *WHOLE[2:14]))]
    [one] = explained({"x.pcap": pcap(packets, link=276)}).connections
    assert (one.target.address, one.endpoint.address) == (VIP[0], POD[0])
    assert [finding.kind for finding in one.findings] == ["retransmission"]


def sides():
    """Return the times and packets of both sides of a node, of a connection without anything wrong."""
    times = [MOMENT + number * 10_000 for number in range(14)]
    by_side = {"client.pcap": [], "server.pcap": []}
    for moment, data in zip(times, WHOLE, strict=False):
        by_side["client.pcap" if data[7] == 3 else "server.pcap"].append((moment, data[20:]))
    return by_side


@pytest.mark.parametrize("late", ["client.pcap", "server.pcap"])
@pytest.mark.parametrize("missing", [1, 2, 3, 4, 5])
def test_a_side_whose_capture_begins_later_is_of_the_same_connection(late, missing):
    files = sides()
    files[late] = files[late][missing:]
    [one] = explained({name: pcap(packets, nano=True) for name, packets in files.items()}).connections
    assert (one.target.address, one.endpoint.address) == (VIP[0], POD[0])
    assert not one.findings, one.findings


@pytest.mark.parametrize("first", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
def test_no_cause_is_claimed_where_the_beginning_is_missing(first):
    [one] = part(first, 22).connections
    assert (one.target.address, one.endpoint.address) == (VIP[0], POD[0])
    assert one.outcome is Outcome.RESET
    assert {finding.case for finding in one.findings} == {""}
    words = str(one.findings)
    assert "why is not to be told" in words
    assert "leaked: packet" in words
    assert "be_liberal" not in words


@pytest.mark.parametrize(("first", "last"), [(17, 18), (17, 22), (18, 22)])
def test_a_reset_alone_is_about_what_is_not_there(first, last):
    one = part(first, last).connections[0]
    assert one.findings[0].words == "RST 1 of the client: what it is about is not in the capture"
    assert one.findings[0].case == ""


@pytest.mark.parametrize("last", [3, 5, 7, 9, 11, 13, 17])
def test_what_the_end_of_a_capture_cuts_off_is_not_lost(last):
    """Its copy at the other interface would have come next."""
    told = part(1, last)
    assert not any(finding.kind == "lost" for one in told.connections for finding in one.findings)
    if last < 17:
        assert {one.outcome for one in told.connections} == {Outcome.CONNECTED}


def test_what_is_lost_long_before_the_end_is_lost():
    packets = [(MOMENT + number * 10_000, data) for number, data in enumerate(WHOLE[:7])]
    later = linked(tcp(("10.0.0.9", 9), ("10.0.0.8", 8), ACK, 1, 1), 276)
    told = explained({"x.pcap": pcap([*packets, (MOMENT + 10**9, later)], link=276)})
    assert told.connections[0].outcome is Outcome.STALLED
    assert [finding.kind for finding in told.connections[0].findings] == ["lost"]
