"""What conntrack is expected to make of a packet, by the packets before it: rules of the kernel's, a case each."""

import pytest

from lab.capture.judging import Conntrack
from lab.capture.sysctls import DEFAULTS
from lab.evidence.flags import is_taken, sets
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, RST, SYN, TCP, Packet, SocketAddress, TcpHeader, flags_of
from lab.vocabulary import Behaviour

CLIENT, SERVER = SocketAddress("10.0.0.2", 34567), SocketAddress("192.168.0.2", 80)
FAR = 2**29


def segment(from_client, flags, sequence, acknowledgement=0):
    ends = (CLIENT, SERVER) if from_client else (SERVER, CLIENT)
    return Packet(*ends, TCP, 0, 0, TcpHeader(sequence, acknowledgement, flags, 64240))


def established(behaviour, sysctls=DEFAULTS):
    entry = Conntrack(CLIENT, behaviour, sysctls)
    entry.judge(segment(True, SYN, 1000), from_client=True)
    entry.judge(segment(False, SYN | ACK, 5000, 1001), from_client=False)
    entry.judge(segment(True, ACK, 1001, 5001), from_client=True)
    return entry


@pytest.mark.parametrize(
    ("behaviour", "judgement"),
    [(Behaviour.IGNORES_LATE, Judgement.ACCEPTED), (Behaviour.STRICT, Judgement.INVALID)],
)
def test_a_reset_that_answers_an_ignored_syn_counts_on_newer_kernels(behaviour, judgement):
    entry = established(behaviour)
    syn = entry.judge(segment(True, SYN, 9000), from_client=True)
    assert (syn.judgement, syn.by) == (Judgement.IGNORED, "state")
    assert entry.judge(segment(False, RST | ACK, 0, 9001), from_client=False).judgement is judgement
    assert entry.closed is (judgement is Judgement.ACCEPTED)


@pytest.mark.parametrize("behaviour", Behaviour)
def test_a_reset_of_the_syns_own_side_is_held_to_the_window(behaviour):
    entry = established(behaviour)
    entry.judge(segment(True, SYN, 9000), from_client=True)
    word = entry.judge(segment(True, RST | ACK, FAR, 9001), from_client=True)
    assert (word.judgement, word.by, word.condition) == (Judgement.INVALID, "window", "I")
    assert not entry.closed


@pytest.mark.parametrize("behaviour", Behaviour)
def test_a_reset_of_number_0_is_behind_where_the_syn_is_not_the_packet_before(behaviour):
    entry = established(behaviour)
    entry.judge(segment(True, SYN, 9000), from_client=True)
    entry.judge(segment(True, ACK, 1001, 5001), from_client=True)
    word = entry.judge(segment(False, RST | ACK, 0, 9001), from_client=False)
    assert (word.judgement, word.by, word.excess) == (Judgement.INVALID, "reset", 5001)


def test_nine_sets_of_flags_are_taken_and_the_others_refused():
    """The table of tcp_valid_flags, held against the kernel by the case flag-sets."""
    plain = [letters for letters in sets() if "P" not in letters]
    assert len(plain) == 32
    assert {letters for letters in plain if is_taken(flags_of(letters))} == {
        *("S", "SU", "SA", "R", "RA", "FA", "FAU", "A", "AU"),
    }
    assert all(is_taken(flags_of(letters)) == is_taken(flags_of(letters + "P")) for letters in plain)
    for letters in plain:
        entry = established(Behaviour.IGNORES_LATE)
        word = entry.judge(segment(False, flags_of(letters), 5001, 1001), from_client=False)
        assert (word.by == "flags") is not is_taken(flags_of(letters)), letters
