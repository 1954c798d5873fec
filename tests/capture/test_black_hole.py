"""Large segments that stay away and of which no ICMP error tells, beside small ones that come."""

import itertools

import pytest

from lab.evidence.packet import ACK, FIN, PSH, SYN
from lab.verdict import Outcome
from tests.support.captures import MOMENT, icmp, pcap, tcp
from tests.support.explaining import explained

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
OPTIONS = b"\x02\x04\x05\xb4\x04\x02\x01\x03\x03\x07\0\0"  # mss, sackOK, wscale
LARGE, SMALL = b"x" * 1400, b"y" * 200


def sack(left, right):
    return b"\x01\x01\x05\x0a" + left.to_bytes(4, "big") + right.to_bytes(4, "big")


def client(server, sequence, acknowledgement, payload=b"", *, flags=ACK | PSH, **how):
    return tcp(CLIENT, server, flags, sequence, acknowledgement, payload, **how)


def answer(server, sequence, acknowledgement, payload=b"", *, flags=ACK, **how):
    return tcp(server, CLIENT, flags, sequence, acknowledgement, payload, **how)


def begun(server=VIP):
    """Return a handshake, a small question and its answer: then 1200 and 5200 are the next numbers."""
    return [
        client(server, 999, 0, flags=SYN, options=OPTIONS, number=1),
        answer(server, 4999, 1000, flags=SYN | ACK, options=OPTIONS, number=1),
        client(server, 1000, 5000, flags=ACK, number=2),
        client(server, 1000, 5000, SMALL, number=3),
        answer(server, 5000, 1200, SMALL, number=2),
        client(server, 1200, 5200, flags=ACK, number=4),
    ]


def again(server=VIP, times=4, payload=LARGE):
    return [client(server, 1200, 5200, payload, number=10 + number) for number in range(times)]


def capture(packets, later=0):
    return pcap([(MOMENT + number * 100_000_000 + later, packet) for number, packet in enumerate(packets)], nano=True)


def holes(*packets, files=None):
    told = explained(files or {"x.pcap": capture(packets)})
    [one] = told.connections
    return one, [finding for finding in one.findings if finding.kind == "black-hole"]


def test_what_is_never_acknowledged_though_small_ones_are():
    one, [found] = holes(*begun(), *again())
    assert found.words.startswith("1,400 bytes of the client, sent 4 times (7, 8, 9, 10), are never acknowledged")
    assert "smaller ones came, of up to 200 bytes" in found.words
    assert found.words.endswith("or the server is gone, of which nothing came behind them")
    assert (found.case, one.outcome) == ("path-mtu-filtered", Outcome.STALLED)


def test_where_the_receiver_speaks_it_is_not_gone():
    _one, [found] = holes(*begun(), *again(), answer(VIP, 5200, 1200, number=9))
    assert "is gone" not in found.words


def test_of_a_server_s_first_answer_the_last_piece_comes():
    """As of a response of several segments, the last of which is shorter: SACK says that it is there."""
    packets = begun()[:4]
    large = [answer(VIP, 5000, 1200, LARGE, number=20), answer(VIP, 6400, 1200, SMALL, number=21)]
    packets += [*large, client(VIP, 1200, 5000, flags=ACK, options=sack(6400, 6600), number=4)]
    packets += [answer(VIP, 5000, 1200, LARGE, number=22 + number) for number in range(3)]
    one, [found] = holes(*packets)
    assert found.words.startswith("1,400 bytes of the server, sent 4 times (5, 8, 9, 10), are never acknowledged")
    assert "of up to 200 bytes" in found.words
    assert one.outcome is Outcome.STALLED


def test_a_sender_that_tries_smaller_pieces_shows_that_it_was_the_size():
    one, [found] = holes(*begun(), *again(), *again(times=1, payload=LARGE[:700]), answer(VIP, 5200, 1900, number=9))
    assert "were not acknowledged; in a piece of 700 bytes they came" in found.words
    assert one.outcome is Outcome.CONNECTED


@pytest.mark.parametrize("name", [True, False])
def test_what_is_never_seen_behind_the_node(name):
    """A capture on both sides of it: twice is enough, with a closing FIN or not."""
    front = [*begun(), *again(times=2), *([client(VIP, 2600, 5200, flags=FIN | ACK, number=40)] * name)]
    front.append(answer(VIP, 5200, 1200, number=9))
    behind = [*begun(POD), *([client(POD, 2600, 5200, flags=FIN | ACK, number=40)] * name)]
    times = [*range(6), *([8] * name)]
    back = (9 if name else 8, answer(POD, 5200, 1200, number=9))
    late = pcap(
        [
            (MOMENT + at * 100_000_000 + (-20_000 if packet[12:16] == b"\x0a\0\1\2" else 20_000), packet)
            for at, packet in itertools.chain(zip(times, behind, strict=True), [back])
        ],
        nano=True,
    )
    one, [found] = holes(files={"client.pcap": capture(front), "server.pcap": late})
    assert "sent 2 times (7, 8 of client.pcap), did not come as far as others each time" in found.words
    assert "seen last as packet 8 of client.pcap" in found.words
    assert one.outcome is Outcome.STALLED


@pytest.mark.parametrize(
    "packets",
    [
        (*begun(), *again(), answer(VIP, 5200, 2600, number=9)),  # it came at last
        (*begun(), *again(times=2)),  # from one side that is nothing out of the ordinary
        (
            *begun(),
            *again(times=1),
            answer(VIP, 5200, 2600),
            *(client(VIP, 2600, 5200, LARGE, number=50 + n) for n in range(4)),
        ),
        (*begun(), *again(payload=b"z" * 500)),  # every link takes that
        (*begun(), answer(VIP, 5200, 1200, window=0, number=8), *again()),
        (*begun(), *again(), icmp("10.0.9.9", CLIENT[0], 3, 4, again()[0], mtu=1300)),  # which is told by itself
        (*begun()[:3], *(client(VIP, 1000, 5000, LARGE, number=10 + n) for n in range(4))),  # the server may be gone
    ],
)
def test_where_the_evidence_does_not_allow_it_nothing_is_said(packets):
    assert holes(*packets)[1] == []
