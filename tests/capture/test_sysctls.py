"""A node's sysctls beside a capture: what is judged by them is judged as that node does."""

import dataclasses
import io

import pytest

from lab.capture.explain import explain
from lab.capture.judging import Conntrack
from lab.capture.reader import Reader
from lab.capture.sysctls import KERNELS, Sysctls
from lab.capture.text import Text, is_text
from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, PSH, RST, SYN
from lab.results.saved import from_json
from lab.vocabulary import Behaviour
from tests.capture.test_explained import captured
from tests.capture.test_judging import CLIENT as ASKING
from tests.capture.test_judging import FAR, established, segment
from tests.support.captures import MOMENT, pcap, tcp
from tests.support.command import lab

CLIENT, VIP, POD = ("10.9.8.7", 4000), ("172.20.0.1", 443), ("10.9.9.9", 8443)
SECOND = 10**9
PREFIX = "net.netfilter.nf_conntrack_tcp_"


def text(words, name="sysctl.txt"):
    return Text(io.BufferedReader(io.BytesIO(words.encode())), name)


def told(files, *texts, behaviour=Behaviour.IGNORES_LATE):
    readers = [Reader(io.BufferedReader(io.BytesIO(data)), name) for name, data in files.items()]
    return explain(readers, behaviour, texts)


def findings(explanation):
    return [finding for one in explanation.connections for finding in one.findings]


def leak_after(seconds):
    """Both sides of a node: a handshake, and a while later a packet of the server's that is not translated."""
    opened = [(True, SYN, 999, 0), (False, SYN | ACK, 4999, 1000), (True, ACK, 1000, 5000)]
    before, behind = [], []
    for number, (by_client, flags, sequence, acknowledged) in enumerate(opened):
        numbers = (flags, sequence, acknowledged)
        ends = (CLIENT, VIP), (CLIENT, POD)
        one, other = (pair if by_client else pair[::-1] for pair in ends)
        before.append((MOMENT + number * 1000, tcp(*one, *numbers, number=number + 1)))
        behind.append((MOMENT + number * 1000 + 100, tcp(*other, *numbers, number=number + 1)))
    late = tcp(POD, CLIENT, ACK | PSH, 5000, 1000, b"late", number=9)
    for packets in (behind, before):
        packets.append((MOMENT + 2000 + int(seconds * SECOND), late))
    # Cut within the payload, lest the checksum be told.
    return {"client.pcap": pcap(before, snaplen=42), "server.pcap": pcap(behind, snaplen=42)}


@pytest.mark.parametrize(
    ("set_to", "after", "words", "case"),
    [
        (None, 40, "it was deleted, unless a shorter timeout is set there", "entry-deleted"),
        (
            30,
            40,
            "idle for 40 s in ESTABLISHED, whose entry lives 30 s by the sysctls given: it expired",
            "entry-expired",
        ),
        (2, 3, "idle for 3 s in ESTABLISHED, whose entry lives 2 s by the sysctls given: it expired", "entry-expired"),
        (86400, 40, "whose entry lives 86,400 s by the sysctls given: it was deleted", "entry-deleted"),
    ],
)
def test_the_time_without_a_packet_is_held_against_what_is_set(set_to, after, words, case):
    texts = [text(f"{PREFIX}timeout_established = {set_to}\n")] if set_to else []
    [found] = [one for one in findings(told(leak_after(after), *texts)) if one.kind == "leak"]
    assert words in found.words
    assert found.case == case


@pytest.mark.lab_kernel
def test_a_liberal_node_is_not_told_that_its_packets_were_invalid(tmp_path):
    path, capture, list_ = tmp_path / "run.json", tmp_path / "run.pcapng", tmp_path / "sysctl.txt"
    words = ("run", "beyond-window", "--fix", "be-liberal", "--packets", "--json", path, "--pcapng", capture)
    assert lab(*words).returncode == 0
    [tally] = from_json(path.read_bytes()).tallies
    files = captured(tally.sample)
    [found] = findings(told(files))
    assert (found.judgement, "nf_conntrack_tcp_be_liberal is set there" in found.words) == (Judgement.ACCEPTED, True)
    list_.write_text(f"{PREFIX}be_liberal = 1\n")
    assert findings(told(files, text(list_.read_text()))) == []
    assert lab("explain", capture).returncode == 1
    done = lab("explain", capture, list_, COLUMNS="1000")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nf_conntrack_tcp_be_liberal=1: nothing of TCP is INVALID by the window there" in done.stdout


def judged(sysctls, *, flags, sequence, acknowledgement, new=False):
    entry = Conntrack(ASKING, Behaviour.IGNORES_LATE, sysctls) if new else established(Behaviour.IGNORES_LATE, sysctls)
    return entry.judge(segment(False, flags, sequence, acknowledgement), from_client=False)


def test_what_each_switch_does():
    set_ = Sysctls(be_liberal=True, loose=False, ignores_wrong_resets=True)
    far = {"flags": ACK, "sequence": 5001 + FAR, "acknowledgement": 1001}
    assert judged(Sysctls(), **far).by == "window"
    assert judged(set_, **far).judgement is Judgement.ACCEPTED
    behind = {"flags": RST, "sequence": 5000, "acknowledgement": 0}
    assert judged(Sysctls(), **behind).by == "reset"
    assert judged(set_, **behind).judgement is Judgement.ACCEPTED
    middle = {"flags": ACK, "sequence": 5001, "acknowledgement": 1001, "new": True}
    assert judged(Sysctls(), **middle).judgement is Judgement.ACCEPTED
    assert (judged(set_, **middle).judgement, judged(set_, **middle).by) == (Judgement.INVALID, "new")


def test_lists_are_read_in_every_form_that_people_have():
    same = (
        f"{PREFIX}be_liberal = 1\n",
        "net/netfilter/nf_conntrack_tcp_be_liberal=1\n",
        "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal:1\n",
        "net.ipv4.netfilter.ip_conntrack_tcp_be_liberal = 1\n",
        f"sysctl: permission denied on key 'net.ipv6.conf.all.stable_secret'\n{PREFIX}be_liberal = 1\n",
    )
    for words in same:
        assert is_text(io.BufferedReader(io.BytesIO(words.encode())))
        assert [(one.name, one.value) for one in text(words).sysctls.used] == [("be_liberal", 1)], words


def test_what_is_not_used_is_said_and_what_is_the_kernels_own():
    many = f"net.ipv4.ip_forward = 1\nkernel.panic = 0\n{PREFIX}timeout_close_wait = {KERNELS['CLOSE_WAIT']}\n"
    explanation = told({}, text(many))
    assert "of 3 sysctls 1 are used" in explanation.notes[0]
    assert [one.words for one in explanation.remarks] == [
        "the sysctls by which conntrack judges TCP are the kernel's defaults"
    ]
    one = told({}, text(f"{PREFIX}timeout_close_wait = 3600\n")).remarks[0]
    assert one.words.endswith("an entry in CLOSE_WAIT lives 3,600 s there; the kernel's default is 60 s")


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (("net.ipv4.ip_forward = 1\n",), "none by which conntrack judges TCP"),
        ((f"\n{PREFIX}be_liberal = yes\n",), "'yes' is no number"),
        ((f"{PREFIX}loose = 1\n", f"{PREFIX}loose = 0\n"), "nf_conntrack_tcp_loose is 0 here, and 1 in 0.txt, line 1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(lists, words):
    with pytest.raises(InputError, match=words) as refused:
        told({}, *(text(one, f"{number}.txt") for number, one in enumerate(lists)))
    assert refused.value.cure
    assert refused.value.line


def test_a_connection_finds_the_entry_of_the_one_before_as_long_as_it_lives():
    """A SYN within the 10 s of CLOSE that the server's RST left is ignored; behind them an entry is made."""
    packets = [
        (0, tcp(CLIENT, VIP, SYN, 999, 0)),
        (1, tcp(VIP, CLIENT, SYN | ACK, 4999, 1000)),
        (2, tcp(CLIENT, VIP, ACK, 1000, 5000)),
        (3, tcp(VIP, CLIENT, RST | ACK, 5000, 1000)),
    ]
    again = tcp(CLIENT, VIP, SYN, 900_000, 0)

    def ignored(after, *texts):
        times = [*packets, (after * SECOND, again)]
        one = told({"x.pcap": pcap([(MOMENT + time, packet) for time, packet in times])}, *texts)
        return [finding.case for finding in findings(one) if finding.judgement is Judgement.IGNORED]

    assert ignored(9) == ["port-reused-after-server-reset"]
    assert ignored(11) == []
    assert ignored(9, text(f"{PREFIX}timeout_close = 5\n")) == []
    assert dataclasses.replace(Sysctls(), timeouts={"CLOSE": 5}).lives("CLOSE") == 5
