"""Text beside captures: what each line is, and what it tells."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lab.capture.explain import explain
from lab.capture.kernel_log import log_line
from lab.capture.listing import listed
from lab.capture.reader import Reader
from lab.capture.statistics import COUNTERS
from lab.capture.text import Text, is_text
from lab.cases import CASES
from lab.conntrack.flows import Direction, Flow
from lab.errors import InputError
from lab.evidence.packet import ACK, FIN, PSH, RST, SYN, SocketAddress
from lab.vocabulary import Behaviour
from tests.support.captures import MOMENT, linked, pcap, pcapng, tcp
from tests.support.command import lab

TEXTS = Path(__file__).parent / "texts"
CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
SYNS = b"\x02\x04\x05\xb4\x04\x02\x01\x03\x03\x0a\0\0"  # mss, sackOK, wscale 10
TIMES = b"\x01\x01\x08\x0a\0\0\0\x07\0\0\0\x09"
SACK = b"\x01\x01\x05\x0a" + (1_000_002).to_bytes(4, "big") + (1_000_006).to_bytes(4, "big")
FAR = 2**29


def text(words, name="given.txt"):
    return Text(io.BufferedReader(io.BytesIO(words if isinstance(words, bytes) else words.encode())), name)


def told(*texts, kernel=None, captures=()):
    readers = [Reader(io.BufferedReader(io.BytesIO(data)), name) for name, data in captures]
    return explain(readers, kernel or Behaviour.IGNORES_LATE, texts, assumed=kernel is None)


def remarks(words, **how):
    return told(text(words), **how).remarks


# --- tcpdump --------------------------------------------------------------------------------------------


def connection(six=False):
    """A connection by the VIP with a packet far out of the window, as it was captured on the client's side."""
    ends = (CLIENT, VIP, POD)
    if six:
        ends = (("fd00:10::2", 34567), ("fd00:20::2", 80), ("fd00:10:0:1::2", 80))
    client, vip, pod = ends
    return [
        tcp(client, vip, SYN, 999_999, 0, options=SYNS),
        tcp(vip, client, SYN | ACK, 4_999_999, 1_000_000, options=SYNS),
        tcp(client, vip, ACK, 1_000_000, 5_000_000, window=63),
        tcp(client, vip, ACK | PSH, 1_000_000, 5_000_000, b"?" * 10, number=1, window=63, options=TIMES),
        tcp(vip, client, ACK, 5_000_000, 1_000_010, number=2, window=64, options=SACK),
        tcp(vip, client, ACK | PSH, 5_000_000, 1_000_010, b"!" * 20, number=3, window=64),
        tcp(pod, client, ACK | PSH, 5_000_020 + FAR, 1_000_010, b"far away", number=4, window=64),
        tcp(client, pod, RST, 1_000_010, 0, window=0),
        tcp(client, vip, FIN | ACK, 1_000_010, 5_000_020, number=5, window=63),
    ]


FORMS = ["-n", "-nn -tttt", "-n -tt", "-n -ttt", "-n -t", "-n -v", "-n -vvv -S", "-n -e", "-n -S -tttt", "-n -x"]


def tcpdump(capture, *options):
    done = subprocess.run(["tcpdump", *options, "-r", "-"], input=capture, capture_output=True, check=False)
    if b"Couldn't change to" in done.stderr:  # root of a user namespace, in which there is no user to become
        pytest.skip("tcpdump wants to give up root's rights, and cannot in a user namespace")
    done.check_returncode()
    return done.stdout


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump: apt-get install tcpdump")
@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("link", [1, 101, 276])
@pytest.mark.parametrize("form", FORMS)
def test_what_tcpdump_prints_tells_what_its_capture_does(form, link, six):
    packets = [linked(packet, link) for packet in connection(six)]
    capture = pcap([(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)], link=link)
    printed = tcpdump(capture, *form.split())
    assert is_text(io.BufferedReader(io.BytesIO(printed)))
    by_text = told(text(printed, "x"))
    by_capture = told(captures=[("x", capture)])
    assert by_capture.connections[0].findings[0].case == "beyond-window"
    assert [one.outcome for one in by_text.connections] == ["reset"]
    assert by_text.packets == by_capture.packets == len(packets)

    def without_places(one):
        return replace(
            one,
            points=(),
            findings=tuple(replace(finding, packets=(), words="", hops=()) for finding in one.findings),
            asked=None,
        )

    assert [*map(without_places, by_text.connections)] == [*map(without_places, by_capture.connections)]
    begins = [number for number, line in enumerate(printed.splitlines(), 1) if b" > " in line or b"proto" in line]
    if "-v" in form and not six:  # of IPv4 the addresses are on a line of their own
        begins = [number for number, line in enumerate(printed.splitlines(), 1) if b"proto TCP" in line]
    lines = [[place.number for place in one.packets] for one in by_text.connections[0].findings]
    numbers = [[place.number for place in one.packets] for one in by_capture.connections[0].findings]
    assert lines == [[begins[number - 1] for number in one] for one in numbers]


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="no tcpdump: apt-get install tcpdump")
def test_interfaces_and_ways_of_any_are_read():
    capture = pcap([(MOMENT, linked(packet, 276)) for packet in connection()], link=276)
    printed = tcpdump(capture, "-n")
    named = b"\n".join(line.replace(b" ? ", b" eth0 ", 1) for line in printed.splitlines())
    for one in (named, named.replace(b" Out ", b" In ")):
        [found] = told(text(one)).connections
        assert found.points == ("eth0",)
        assert found.outcome == "reset"


LINED = (
    "12:00:00.000003 ARP, Request who-has 10.0.0.3 tell 10.0.0.2, length 28",
    "12:00:00.000001 IP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto TCP (6), length 40)",
    "    10.0.0.2.5 > 10.0.0.3.80: Flags [S], cksum 0x1 (correct), seq 100, win 100, length 0",
    "12:00:00.000002 IP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto TCP (6), length 40)",
    "    10.0.1.3.80 > 10.0.0.2.5: Flags [S.], cksum 0x1 (correct), seq 200, ack 101, win 100, length 0",
    "12:00:00.000003 IP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto UDP (17), length 57)",
    "    10.0.0.2.5 > 10.0.0.3.53: 7+ A? example.org. (29)",
    "12:00:00.000004 IP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto TCP (6), length 40)",
    "    10.0.0.2.5 > 10.0.1.3.80: Flags [R], cksum 0x1 (correct), seq 101, win 0, length 0",
)


def test_packets_of_a_text_are_named_by_the_lines_that_they_begin_in(tmp_path):
    path = tmp_path / "dump.txt"
    path.write_text("\n".join(LINED))
    printed = lab("explain", path, COLUMNS="1000").stdout
    assert "  * line 4: SYN,ACK of the server" in printed
    assert "leaked: the packet in line 4 comes from 10.0.1.3:80" in printed
    assert "RST in line 8 answers it" in printed
    document = json.loads(lab("explain", path, "--json").stdout)
    assert document["printed"] == [str(path)]
    assert [one["number"] for one in document["connections"][0]["findings"][0]["packets"]] == [4, 4, 8]


QUOTING = (
    "12:00:00.000005 eth0 Out IP (tos 0xc0, ttl 64, id 9, offset 0, flags [none], proto ICMP (1), length 80)",
    "    10.0.0.1 > 10.0.0.2: ICMP net 10.0.0.3 unreachable, length 60",
    "\tIP (tos 0x0, ttl 64, id 1, offset 0, flags [DF], proto TCP (6), length 40)",
    "    10.0.0.2.5 > 10.0.0.3.80: Flags [F.], cksum 0x1 (correct), seq 101, ack 201, win 9, length 0",
)


def test_what_an_icmp_error_quotes_is_no_packet_that_passed():
    lines = [line.replace("00 ", "00 eth0 Out ", 1) for line in LINED[1:3]]
    assert told(text("\n".join((*lines, *QUOTING)))).packets == 1


def test_text_of_datagrams_alone_is_refused_and_beside_others_counted():
    datagrams = [LINED[5], LINED[6], "12:00:00.000006 IP6 fd00::2.5 > fd00::3.53: 7+ A? example.org. (29)"]
    with pytest.raises(InputError, match=r"no TCP, .* packets 2 of UDP and 1 of others") as refused:
        text("\n".join((*datagrams, LINED[0])))
    assert "tcpdump -w" in refused.value.cure
    [note] = [note for note in told(text("\n".join((*datagrams, SYN_SENT)))).notes if "left out" in note]
    assert note.endswith("packets left out: 2 of UDP")


def test_beside_a_capture_packets_of_a_text_keep_their_lines():
    dated = text("\n".join(line.replace("12:", "2026-01-02 12:", 1) for line in LINED), "dump.txt")
    found = told(dated, captures=[("d.pcap", pcapng([(MOMENT, connection()[0])]))])
    words = " ".join(finding.words for one in found.connections for finding in one.findings)
    assert "leaked: the packet in line 4 of dump.txt comes from" in words
    assert found.printed == ("dump.txt",)


def test_sequence_numbers_that_are_not_printed_are_said_to_be_guessed():
    lines = (
        "12:00:00.000001 IP 10.0.0.2.5 > 10.0.0.3.80: Flags [S], seq 100, win 100, length 0",
        "12:00:00.000002 IP 10.0.0.3.80 > 10.0.0.2.5: Flags [S.], seq 200, ack 101, win 100, length 0",
        "12:00:00.000003 IP 10.0.0.2.5 > 10.0.0.3.80: Flags [.], ack 1, win 100, length 0",
        "12:00:00.000003 IP 10.0.0.2.5 > 10.0.0.3.53: 7+ A? example.org. (29)",
        "12:00:00.000003 ARP, Request who-has 10.0.0.3 tell 10.0.0.2, length 28",
        "what somebody wrote between the lines",
    )
    found = told(text("\n".join(lines)))
    assert not found.found
    assert found.packets == 3
    notes = " ".join(found.notes)
    assert "of 1 segment without data the sequence number is not printed" in notes
    assert "TCP alone is read: packets left out: 1 of UDP and 1 of others" in notes
    assert "line 6 is about something else: left out" in notes


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("12:00:00.0 IP web.http > 10.0.0.2.5: Flags [S], seq 1, win 1, length 0", "'web.http' is no address"),
        ("12:00:00.0 IP 10.0.0.3.80 > 10.0.0.2.5: Flags [S], tcp", "a TCP packet without its length"),
    ],
)
def test_names_instead_of_numbers_are_refused(line, error):
    with pytest.raises(InputError, match=error) as refused:
        text(f"\n{line}\n")
    assert (refused.value.line, refused.value.source) == (2, "given.txt")
    assert "tcpdump -n" in refused.value.cure


def test_times_without_a_day_have_no_order_with_those_of_others():
    line = "12:00:00.000001 IP 10.0.0.2.5 > 10.0.0.3.80: Flags [S], seq 100, win 100, length 0"
    with pytest.raises(InputError, match="no day"):
        told(text(line, "a"), text(line, "b"))
    dated = text(f"2026-01-02 {line}", "c")
    assert told(dated, captures=[("d", pcapng([(MOMENT, connection()[0])]))]).packets == 2


# --- conntrack's entries --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count"), [("list-extended-id", 5), ("proc-net-nf_conntrack", 5)])
def test_entries_of_every_form_are_read(name, count):
    entries = text((TEXTS / f"{name}.txt").read_bytes()).entries
    assert len(entries) == count
    by_protocol = {(one.protocol, one.state): one for one in entries}
    closing = by_protocol["tcp", "CLOSE_WAIT"]
    assert (closing.timeout, closing.flags) == (59, {"ASSURED"})
    assert closing.original == (SocketAddress("127.0.0.1", 53792), SocketAddress("127.0.0.1", 8080))
    assert by_protocol["tcp", "ESTABLISHED"].zone == "zone=3"
    assert by_protocol["icmpv6", ""].original[0] == SocketAddress("::1", 2748)
    assert by_protocol["udp", ""].flags == {"UNREPLIED"}


def test_events_are_read():
    events = text((TEXTS / "events-timestamp-id.txt").read_bytes()).entries
    assert [one.event for one in events[:2]] == ["NEW", "UPDATE"]
    assert events[0].time == pytest.approx(1795969093.532586)
    assert {one.event for one in events} == {"NEW", "UPDATE", "DESTROY"}


ENTRY = (
    "tcp 6 86397 ESTABLISHED src=10.0.0.2 dst=192.168.0.2 sport=34567 dport=80 {}"
    " src=10.0.1.2 dst=10.0.0.2 sport=8080 dport=34567 [ASSURED] mark=0 use=1"
)
SYN_SENT = ENTRY.replace("86397 ESTABLISHED", "99 SYN_SENT").replace("[ASSURED] ", "").format("[UNREPLIED]")


@pytest.mark.parametrize(
    ("lines", "words", "case"),
    [
        (
            (
                ENTRY.format(""),
                (
                    "tcp 6 99 SYN_SENT src=10.0.0.9 dst=192.168.0.2 sport=5 dport=80 [UNREPLIED] src=192.168.0.2"
                    " dst=10.0.0.9 sport=80 dport=5"
                ),
            ),
            "not translated, though others to the same address are",
            "syn-before-service",
        ),
        (
            (
                ENTRY.format(""),
                (
                    "tcp 6 299 ESTABLISHED src=10.0.1.2 dst=10.0.0.2 sport=8080 dport=5 [UNREPLIED] src=10.0.0.2"
                    " dst=10.0.1.2 sport=5 dport=8080"
                ),
            ),
            "begun by an endpoint's answer",
            "entry-deleted",
        ),
        (
            (SYN_SENT,),
            "this node has seen no answer",
            "asymmetric-route-clients-half",
        ),
        (
            (
                (
                    "udp 17 29 src=10.0.0.2 dst=192.168.0.2 sport=5 dport=53 [UNREPLIED]"
                    " src=10.0.1.2 dst=10.0.0.2 sport=53 dport=5"
                ),
            ),
            "datagrams to an endpoint that does not answer",
            "stale-udp-entry",
        ),
        (
            (
                f"    [NEW] {ENTRY.format('')}".replace("86397 ESTABLISHED", "120 SYN_SENT"),
                f" [UPDATE] {ENTRY.format('')}",
                f"[DESTROY] {ENTRY.format('')} [USERSPACE] portid=7 progname=kube-proxy",
            ),
            "deleted by a program (kube-proxy) while the connection lived",
            "entry-deleted",
        ),
        (
            (f" [UPDATE] {ENTRY.format('')}", f"[DESTROY] {ENTRY.format('')}".replace("86397 ESTABLISHED ", "")),
            "gone while the connection lived",
            "entry-expired",
        ),
        (
            (f" [UPDATE] {ENTRY.format('')}", f"[DESTROY] {ENTRY.format('')}".replace("86397 ", "")),
            "expired while the connection lived",
            "entry-expired",
        ),
        ((f"    [NEW] {ENTRY.format('[UNREPLIED]')}",), "begun in the middle", "picked-up"),
    ],
)
def test_entries_that_are_out_of_the_ordinary_are_named(lines, words, case):
    found = [one for one in remarks("\n".join(lines)) if words in one.words]
    assert len(found) == 1
    assert case in found[0].cases
    assert set(found[0].cases) <= set(CASES)
    assert found[0].further[0].startswith(f"line {len(lines)}: ")


def test_an_ordinary_end_is_nothing_to_tell():
    events = (
        f"    [NEW] {ENTRY.format('')}".replace("86397 ESTABLISHED", "120 SYN_SENT"),
        f" [UPDATE] {ENTRY.format('')}",
        f" [UPDATE] {ENTRY.format('')}".replace("86397 ESTABLISHED", "120 TIME_WAIT"),
        f"[DESTROY] {ENTRY.format('')}".replace("86397 ESTABLISHED ", ""),
    )
    found = told(text("\n".join(events)))
    assert not found.found
    assert [one.words for one in found.remarks] == ["tcp 192.168.0.2:80 is 10.0.1.2:8080 (1)"]


def test_an_entry_that_is_cut_is_one_error():
    with pytest.raises(InputError, match="not whole") as refused:
        text(f"{ENTRY.format('')}\ntcp 6 99 SYN_SENT src=10.0.0.2 dst=10.0.")
    assert refused.value.line == 2
    assert listed("tcp is what it is about", 1, "x") is None


def test_a_listing_beside_a_capture_says_whom_the_vip_became():
    """The report's two files: a RST from the endpoint's own address, at the client's side."""
    printed, listed_there = (TEXTS / "tcpdump.txt").read_bytes(), (TEXTS / "list-and-statistics.txt").read_bytes()
    asked = printed.splitlines()[0]
    [one] = told(text(asked)).connections
    assert one.endpoint is None
    [one] = told(text(asked), text(listed_there, "ct.txt")).connections
    assert (str(one.target), str(one.endpoint)) == ("172.21.4.4:80", "10.50.9.9:8080")
    for texts in ([text(printed)], [text(printed), text(listed_there, "ct.txt")]):
        [one] = told(*texts).connections
        assert (str(one.target), str(one.endpoint)) == ("172.21.4.4:80", "10.50.9.9:8080")
        assert one.outcome == "stalled"
        assert "an answer to the client's SYN from a stranger" in one.findings[0].words
        assert (
            "the packet in line 2 comes from 10.50.9.9:8080, and the client only knows 172.21.4.4:80"
            in one.findings[0].words
        )
    assert "(ct.txt, line 1): ESTABLISHED, 86,397 s left, ASSURED" in one.entry


# --- what conntrack counted -----------------------------------------------------------------------------


def test_counters_are_told_with_what_they_mean():
    found = {one.words.split()[0]: one for one in remarks((TEXTS / "list-and-statistics.txt").read_bytes())}
    assert found["invalid"].words.startswith("invalid 4,281: ")
    assert found["insert_failed"].is_wrong
    assert not found["search_restart"].is_wrong
    assert "early_drop" not in found
    for counter in COUNTERS.values():
        assert set(counter.cases) <= set(CASES)


def test_which_counter_grew_is_told_where_there_are_two_samples():
    first = "cpu=0 found=1 invalid=5 drop=0\ncpu=1 found=1 invalid=5 drop=0\n"
    second = "cpu=0 found=1 invalid=5 drop=2\ncpu=1 found=1 invalid=7 drop=0\n"
    words = [one.words for one in remarks(first + second)]
    assert [one.split(":")[0] for one in words] == ["invalid grew by 2, to 12", "drop grew by 2, to 2"]
    assert [one.words for one in remarks(first + first)] == ["no counter has grown"]
    assert told(text(first + first)).found is False


# --- the kernel's log -----------------------------------------------------------------------------------

PACKET = (
    "IN= OUT= SRC=10.0.1.2 DST=10.0.0.2 LEN=48 TOS=0x00 PREC=0x00 TTL=63 ID=4 DF PROTO=TCP SPT=80 DPT=34567"
    f" SEQ={5_000_020 + FAR} ACK=1000010 WINDOW=64 RES=0x00 ACK PSH URGP=0"
)
OVER = "nf_ct_proto_6: SEQ is over upper bound 5064513 (over the window of the receiver) "


@pytest.mark.parametrize(
    "before",
    [
        "",
        "[81220.104511] ",
        "[  812.104511] ",
        "[Sun Nov 29 16:18:13 2026] ",
        "<4>[81220.104511] ",
        "kern  :warn  : [81220.104511] ",
        "Nov 29 16:18:13 node-1 kernel: ",
        "Nov  2 16:18:13 node-1 kernel: [81220.104511] ",
        "2026-11-29T16:18:13+0000 node-1 kernel: ",
        "2026-11-29T16:18:13.104511+00:00 node-1 kernel: [81220.104511] ",
    ],
)
def test_a_line_of_every_form_of_log_is_read(before):
    line = log_line(f"{before}{OVER}{PACKET}", 3)
    assert (line.line, line.by_conntrack, line.reason.name) == (3, True, "seq-over")
    assert line.packet.source == SocketAddress("10.0.1.2", 80)
    assert (line.packet.sequence, line.packet.acknowledgement, line.packet.length) == (5_000_020 + FAR, 1_000_010, 8)
    assert line.excess == 5_000_020 + FAR - 5_064_512
    rule = log_line(f"{before}no entry: {PACKET}", 4)
    assert (rule.by_conntrack, rule.words) == (False, "no entry:")
    assert log_line(f"{before}eth0: link is up", 5) is None


def test_a_packet_of_the_log_is_found_in_the_capture():
    packets = [(MOMENT + number, packet) for number, packet in enumerate(connection())]
    found = told(text(f"{OVER}{PACKET}", "log"), captures=[("x.pcap", pcap(packets))])
    [one] = found.remarks
    assert one.became == "INVALID"
    assert "out of it by 536,806,420 bytes; it is packet 7 of x.pcap" in one.further[-1]
    assert found.connections[0].findings[0].excess == 536_806_420


@pytest.mark.parametrize(
    ("words", "kernel", "became"),
    [
        ("SEQ is under lower bound 7 (already ACKed data retransmitted)", None, "ignored"),
        ("SEQ is under the lower bound (already ACKed data retransmitted)", None, "INVALID"),
        ("SEQ is under the lower bound (already ACKed data retransmitted)", Behaviour.IGNORES_LATE, "INVALID"),
        ("invalid packet ignored in state ESTABLISHED ", None, "ignored"),
        ("packet (index 3) in dir 0 invalid, state SYN_SENT", Behaviour.STRICT, "INVALID"),
        ("invalid rst", None, "INVALID"),
    ],
)
def test_whether_it_was_invalid_depends_on_the_kernel_that_wrote_it(words, kernel, became):
    [one] = remarks(f"[1.0] nf_ct_proto_6: {words} {PACKET}", kernel=kernel)
    assert one.became == became
    assert one.is_wrong is (became == "INVALID")
    assert ("not the --kernel that was given" in str(one.further)) is (
        kernel is Behaviour.IGNORES_LATE and "the lower" in words
    )


@pytest.mark.parametrize(
    ("words", "wrote", "other"),
    [
        ("SEQ is under lower bound 7 (already ACKed data retransmitted)", (6, 1), (6, 0)),
        ("SEQ is under the lower bound (already ACKed data retransmitted)", (6, 0), (6, 1)),
        ("invalid packet ignored in state ESTABLISHED ", (5, 10), (5, 18)),
        ("packet (index 3) in dir 0 invalid, state SYN_SENT", (6, 1), (5, 10)),
        ("invalid state", (5, 18), (6, 6)),
        ("invalid new", (6, 12), (6, 1)),
    ],
)
def test_a_kernel_that_does_not_write_so_is_contradicted(words, wrote, other):
    given = text(f"[1.0] nf_ct_proto_6: {words} {PACKET}")
    for release, said in ((wrote, False), (other, True), (None, False)):
        [one] = explain([], Behaviour.IGNORES_LATE, [given], assumed=True, release=release).remarks
        assert (f"not the --kernel that was given ({other[0]}.{other[1]})" in str(one.further)) is said
        assert any("Kernels that write it so:" in line for line in one.further)


def test_the_command_says_that_the_kernel_is_another(tmp_path):
    (tmp_path / "log").write_text(f"[1.0] nf_ct_proto_6: invalid new {PACKET}\n")
    for kernel, said in (("6.1.99-1-amd64", True), ("6.12", False)):
        done = lab("explain", tmp_path / "log", "--kernel", kernel, COLUMNS="1000")
        assert ("not the --kernel that was given (6.1)" in done.stdout) is said, done.stdout


def test_the_report_s_log_is_answered_line_by_line():
    found = told(text((TEXTS / "dmesg.txt").read_bytes()))
    assert [(one.lines, one.became, one.cases[0]) for one in found.remarks] == [
        ((1,), "ignored", "syn-ack-again"),
        ((2,), "INVALID", "reset-behind"),
        ((3,), "INVALID", "ack-above"),
        ((4,), "INVALID", "asymmetric-route-clients-half"),
    ]
    assert found.found


def test_what_conntrack_does_not_say_is_not_made_up():
    [one] = remarks(f"nf_ct_proto_6: some new words {PACKET}")
    assert "no reason of conntrack's that is known here" in one.words
    assert one.became == ""
    [full] = remarks("[1.0] nf_conntrack: nf_conntrack: table full in netns 4026532249, dropping packet")
    assert (full.became, full.cases) == ("dropped", ("table-full-new-connection",))


# --- what is none of these ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "what", "cure"),
    [
        ("*filter\n:INPUT ACCEPT [0:0]\n", "rules of iptables-save", "lab run --node FILE"),
        ("# Warning: iptables-legacy tables present\ntable ip nat {\n", "rules of nft", "lab run --node FILE"),
        ("Chain INPUT (policy ACCEPT)\n", "what iptables -L prints", "iptables-save"),
        ("apiVersion: v1\nkind: Service\n", "objects of Kubernetes", "lab reach FILE"),
        ("NAME   TYPE   CLUSTER-IP\n", "a table of kubectl's", "-o yaml"),
        ("net.ipv4.ip_forward = 1\n", "none by which conntrack judges TCP", "grep nf_conntrack_tcp"),
        ('<?xml version="1.0"?>\n<conntrack>\n', "XML", "without -o xml"),
        ('{"version": 3}\n', "JSON", "lab report FILE"),
        ('{"__REALTIME_TIMESTAMP":"1","MESSAGE":"x"}\n', "journalctl's JSON", "without -o json"),
    ],
)
def test_what_tells_of_no_packets_is_named_with_what_to_do(words, what, cure):
    with pytest.raises(InputError, match=what) as refused:
        text(words)
    assert cure in refused.value.cure
    assert refused.value.line


def zstd(data):
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd])
def test_packed_text_is_read_and_a_cut_one_refused(pack):
    packed = pack((TEXTS / "dmesg.txt").read_bytes())
    assert is_text(io.BufferedReader(io.BytesIO(packed)))
    assert len(text(packed).log) == 4
    with pytest.raises(InputError, match="cannot be read"):
        text(packed[:-9])


def test_captures_are_no_text():
    for data in (
        lzma.compress(pcap([(MOMENT, connection()[0])])),
        pcap([(MOMENT, connection()[0])]),
        pcapng([(MOMENT, connection()[0])]),
        b"",
        b"\0\1",
        b"\xff" * 10,
    ):
        assert not is_text(io.BufferedReader(io.BytesIO(data)))
    assert is_text(io.BufferedReader(io.BytesIO("é".encode() * 3000)))


def test_other_protocols_and_families_of_the_log_are_read():
    six = log_line(
        "nf_ct_proto_6: invalid rst IN= OUT= SRC=fd00::1 DST=fd00::2 LEN=60 TC=0 HOPLIMIT=63 FLOWLBL=7 PROTO=TCP SPT=80"
        " DPT=5 SEQ=7 ACK=0 WINDOW=0 RES=0x00 RST URGP=0",
        1,
    )
    assert (str(six.packet), six.packet.length) == ("[fd00::1]:80 > [fd00::2]:5 RST seq 7", 0)
    quoting = log_line(
        "nf_ct_proto_1: outer daddr 10.0.0.2 != inner 10.0.0.9 IN= OUT= SRC=10.0.1.1 DST=10.0.0.2 LEN=56 PROTO=ICMP"
        " TYPE=3 CODE=4 [SRC=10.0.0.9 DST=10.0.1.2 LEN=1500 PROTO=TCP SPT=1 DPT=2 ] MTU=1400",
        1,
    )
    assert (quoting.reason.name, str(quoting.packet)) == ("icmp-other-host", "10.0.1.1 > 10.0.0.2 ICMP")
    [alone] = remarks("bad checksum")
    assert "UDP, UDPLite have the same words" in str(alone.further)


def test_what_the_lab_lists_is_read_as_conntrack_s():
    flow = Flow(
        "tcp",
        6,
        431_999,
        "ESTABLISHED",
        Direction("10.0.0.2", "192.168.0.2", {"sport": 5, "dport": 80}, 3, 120),
        Direction("10.0.1.2", "10.0.0.2", {"sport": 8080, "dport": 5}, 2, 80),
        ("ASSURED",),
        *(0, None, 1),
    )
    [one] = text(str(flow)).entries
    assert (one.timeout, one.state, one.flags) == (431_999, "ESTABLISHED", {"ASSURED"})
    assert str(one) == "tcp 10.0.0.2:5 > 192.168.0.2:80, which is 10.0.1.2:8080"


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (
            "SRC=10.0.0.2 DST=10.0.1.2 PROTO=TCP SPT=34567 DPT=8080",
            "sent past the VIP: a RST there answers a packet that leaked",
        ),
        ("SRC=10.0.1.2 DST=10.0.0.2 PROTO=TCP SPT=8080 DPT=34567", "from the endpoint of 10.0.0.2:34567 > 192.168.0.2"),
        ("SRC=10.0.0.2 DST=192.168.0.2 PROTO=TCP SPT=34567 DPT=80", "its entry leads to 10.0.1.2:8080"),
        ("SRC=10.0.0.3 DST=192.168.0.2 PROTO=TCP SPT=34567 DPT=80", "192.168.0.2:80 RST."),
    ],
)
def test_a_listing_says_whose_a_packet_of_the_log_is(ends, words):
    lines = (ENTRY.format(""), f"[1.0] nf_ct_proto_6: invalid new IN= OUT= {ends} WINDOW=0 RES=0x00 RST URGP=0")
    [one] = [one for one in remarks("\n".join(lines)) if one.kind == "reason"]
    assert words in one.further[-1]


#: What `tcpdump -ni any` prints of a server's packet that leaks and is reset, in which only its number is wrong.
LEAKED = """\
12:00:00.000001 client In  IP 10.0.0.2.5000 > 192.168.0.2.80: Flags [S], seq 100, win 64240, length 0
12:00:00.000002 server Out IP 10.0.0.2.5000 > 10.0.1.2.80: Flags [S], seq 100, win 64240, length 0
12:00:00.000003 server In  IP 10.0.1.2.80 > 10.0.0.2.5000: Flags [S.], seq 200, ack 101, win 65160, length 0
12:00:00.000004 client Out IP 192.168.0.2.80 > 10.0.0.2.5000: Flags [S.], seq 200, ack 101, win 65160, length 0
12:00:00.000005 client In  IP 10.0.0.2.5000 > 192.168.0.2.80: Flags [.], ack 1, win 63, length 0
12:00:00.000006 server Out IP 10.0.0.2.5000 > 10.0.1.2.80: Flags [.], ack 1, win 63, length 0
12:00:00.000007 server In  IP 10.0.1.2.80 > 10.0.0.2.5000: Flags [.], {0}ack 1, win 64, length 0
12:00:00.000008 client Out IP 10.0.1.2.80 > 10.0.0.2.5000: Flags [.], {0}ack 1, win 64, length 0
12:00:00.000009 client In  IP 10.0.0.2.5000 > 10.0.1.2.80: Flags [R], seq 101, win 0, length 0
12:00:00.000010 server Out IP 10.0.0.2.5000 > 10.0.1.2.80: Flags [R], seq 101, win 0, length 0
"""


@pytest.mark.parametrize(
    ("printed", "words", "case"),
    [
        ("", "its sequence number or its checksum, which are not printed (tcpdump -vv does), or its entry", ""),
        ("cksum 0x1234 (incorrect -> 0x4321), seq 1, ", "INVALID: its checksum is wrong", "bad-checksum"),
        ("cksum 0x1234 (correct), seq 1, ", "within the window, and yet not translated", "entry-deleted"),
    ],
)
def test_what_is_not_printed_is_no_reason(printed, words, case):
    [one] = told(text(LEAKED.format(printed))).connections
    assert words in one.findings[0].words
    assert one.findings[0].case == case
    if not printed:
        assert "checksum is wrong" not in str(one)
