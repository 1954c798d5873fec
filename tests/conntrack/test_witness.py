import pytest

from lab.conntrack.nflog import REASON_GROUP, WITNESS_GROUP, Record
from lab.conntrack.witness import Pairing
from lab.evidence.judgement import Judgement
from lab.evidence.packet import TCP, Packet, SocketAddress, TcpHeader

PACKET = Packet(SocketAddress("10.0.1.2", 80), SocketAddress("10.0.0.2", 9), TCP, 1, 0, TcpHeader(1, 2, 16, 64))


def reason(words, data=b"one"):
    return Record(REASON_GROUP, words, None, data, PACKET)


def word(state, data=b"one"):
    return Record(WITNESS_GROUP, state, 5, data, PACKET)


def test_a_reason_belongs_to_the_packet_that_it_was_logged_with():
    [first, second] = Pairing("node").take(
        [
            reason("nf_ct_proto_6: SEQ is over upper bound 7 (over the window)"),
            word("invalid"),
            word("established"),
        ]
    )
    assert first.reason == "SEQ is over upper bound 7 (over the window)"
    assert second.reason == ""


def test_reasons_are_told_apart_by_the_packet_and_wait_for_their_witness():
    pairing = Pairing("node")
    assert pairing.take([reason("late", b"two"), reason("early", b"one")]) == []
    [one, two] = pairing.take([word("invalid", b"one"), word("established", b"two")])
    assert (one.reason, two.reason) == ("early", "late")


@pytest.mark.parametrize(
    ("state", "words", "judgement"),
    [
        ("invalid", "SEQ is over", Judgement.INVALID),
        ("invalid", "", Judgement.INVALID),
        ("established", "", Judgement.ACCEPTED),
        ("established", "SEQ is under lower bound", Judgement.IGNORED),
        ("related", "", Judgement.RELATED),
        ("new", "", Judgement.NEW),
        ("untracked", "", Judgement.UNTRACKED),
    ],
)
def test_a_reason_alone_never_means_invalid(state, words, judgement):
    records = [reason(words)] if words else []
    [judged] = Pairing("node").take([*records, word(state)])
    assert judged.judgement is judgement
