"""`lab explain`: what it answers, by its exit code too, and what it refuses in one line."""

import json
import os
import signal
import subprocess
import sys

import pytest

from lab.evidence.packet import ACK, FIN, RST, SYN
from tests.support.captures import MOMENT, pcap, pcapng, tcp
from tests.support.command import CHECKOUT, lab
from tests.support.pages import DOCS, code

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
FAR = 2**29
HANDSHAKE = (
    tcp(CLIENT, VIP, SYN, 999, 0),
    tcp(VIP, CLIENT, SYN | ACK, 4999, 1000),
    tcp(CLIENT, VIP, ACK, 1000, 5000),
    tcp(CLIENT, VIP, ACK, 1000, 5000, b"?" * 10, number=1),
)
LEAK = (tcp(POD, CLIENT, ACK, 5000 + FAR, 1010, b"far", number=2), tcp(CLIENT, POD, RST, 1010, 0))
LATE = (tcp(VIP, CLIENT, ACK, 5000 - 70_000, 1010, b"late", number=3),)


def capture(path, *packets, form=pcap):
    path.write_bytes(form([(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)]))
    return path


def test_nothing_is_wrong(tmp_path):
    done = lab("explain", capture(tmp_path / "fine.pcap", *HANDSHAKE))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 connection: nothing wrong.\nJudged as conntrack does")


def test_a_leak_on_the_client_s_side_and_the_reset(tmp_path):
    done = lab(
        "explain", capture(tmp_path / "leak.pcapng", *HANDSHAKE, *LEAK, form=pcapng), "--kernel", "6.12", COLUMNS="1000"
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "10.0.0.2:34567 > 192.168.0.2:80, which is 10.0.1.2:80: reset"
    [told] = [line for line in lines if "INVALID by condition I" in line]
    excess = FAR - 64240  # what the client granted last, of which nothing has come yet
    assert told.startswith("  * 5: ACK of the server, 3 bytes: ")
    assert f"by {excess:,} bytes" in told
    assert "packet 5 (eth0) comes from 10.0.1.2:80, and the client only knows 192.168.0.2:80" in told
    assert "RST 6 answers it, with the number that is awaited" in told
    assert "as --kernel was not given" not in done.stdout


def test_kernels_differ(tmp_path):
    path = capture(tmp_path / "late.pcap", *HANDSHAKE, *LATE)
    for kernel, judgement in (
        ("5.10.0-28-amd64", "INVALID"),
        ("v6.0", "INVALID"),
        ("6.1", "ignored"),
        ("6.18", "ignored"),
    ):
        done = lab("explain", path, "--kernel", kernel, "--json")
        assert done.returncode == 1, done.stderr
        [connection] = json.loads(done.stdout)["connections"]
        finding = connection["findings"][0]
        assert (finding["judgement"], finding["condition"]) == (judgement, "II")
        assert finding["packets"][0]["number"] == 5
        assert finding["case"] == "upstream-regression"


def test_retransmissions_and_a_zero_window_are_told(tmp_path):
    more = (
        tcp(VIP, CLIENT, ACK, 5000, 1010, b"x" * 100, number=5),
        tcp(VIP, CLIENT, ACK, 5000, 1010, b"x" * 100, number=6),
        tcp(CLIENT, VIP, ACK, 1010, 5100, window=0, number=7),
    )
    done = lab("explain", capture(tmp_path / "slow.pcap", *HANDSHAKE, *more))
    assert done.returncode == 1
    assert "  * 1 sent again by the server: 6\n" in done.stdout
    assert "  * zero window: the client takes nothing more, in 1 packet: 7\n" in done.stdout


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        (HANDSHAKE[:1], "nobody answers its SYN"),
        ((HANDSHAKE[0], tcp(VIP, CLIENT, RST | ACK, 0, 1000)), "the server refuses the connection: RST 2"),
        ((*HANDSHAKE, tcp(VIP, CLIENT, RST | ACK, 5000, 1010)), "the server resets the connection: RST 5, with the"),
        ((*HANDSHAKE, tcp(VIP, CLIENT, RST, 5001, 0)), "RST 5 of the server has not the number that is awaited"),
        ((*HANDSHAKE, tcp(VIP, CLIENT, RST, 4999, 0)), "a reset whose number is 1 byte behind what its receiver"),
        ((*HANDSHAKE, tcp(VIP, CLIENT, SYN | 1 | ACK, 5000, 1010)), "no packet has these flags together"),
    ],
)
def test_what_else_is_found(packets, words, tmp_path):
    done = lab("explain", capture(tmp_path / "x.pcap", *packets))
    assert done.returncode == 1
    assert words in done.stdout


STRANGER = ("10.50.9.9", 8080)
ASKED = ("10.50.1.2", 40100), ("172.21.4.4", 80)
ASKS = tcp(*ASKED, SYN, 99, 0)


@pytest.mark.parametrize(
    ("packets", "outcome", "words", "case"),
    [
        (
            (ASKS, tcp(STRANGER, ASKED[0], SYN | ACK, 7, 100), tcp(ASKED[0], STRANGER, RST, 100, 0)),
            "refused",
            "RST 3 answers it: the client has not asked there, and nothing comes of the handshake",
            "answer-past-node",
        ),
        (
            (ASKS, tcp(STRANGER, ASKED[0], SYN | ACK, 7, 100)),
            "stalled",
            "its SYN stays without an answer",
            "answer-past",
        ),
        ((ASKS, tcp(STRANGER, ASKED[0], RST | ACK, 0, 100)), "stalled", "its SYN stays without an answer", ""),
        ((ASKS, tcp(STRANGER, ASKED[0], RST, 7, 0)), "stalled", "it acknowledges nothing: its port and its time", ""),
    ],
)
def test_a_stranger_s_answer_to_a_syn_is_told_with_its_connection(packets, outcome, words, case, tmp_path):
    done = lab("explain", capture(tmp_path / "x.pcap", *packets), COLUMNS="1000")
    assert done.returncode == 1
    first, *others = done.stdout.splitlines()
    assert first == f"10.50.1.2:40100 > 172.21.4.4:80, which is 10.50.9.9:8080: {outcome}"
    [told] = [line for line in others if "from a stranger" in line]
    assert words in told
    assert "leaked: packet 2 comes from 10.50.9.9:8080, and the client only knows 172.21.4.4:80" in told
    assert f"`lab show {case}" in done.stdout if case else "lab show" not in done.stdout


@pytest.mark.parametrize(
    "answer",
    [
        tcp(STRANGER, ASKED[0], SYN | ACK, 7, 5000),  # acknowledges what was not asked
        tcp(STRANGER, ASKED[0], ACK, 7, 100),
        tcp(STRANGER, ("10.50.1.2", 40101), SYN | ACK, 7, 100),  # another port's
    ],
)
def test_what_answers_no_syn_is_a_connection_of_its_own(answer, tmp_path):
    done = lab("explain", capture(tmp_path / "x.pcap", ASKS, answer), COLUMNS="1000")
    assert done.stdout.startswith("10.50.1.2:40100 > 172.21.4.4:80: stalled\n  1 packet\n")


def test_a_reset_long_after_a_syn_is_none_of_its_answer(tmp_path):
    packets = [(MOMENT, ASKS), (MOMENT + 2 * 10**9, tcp(STRANGER, ASKED[0], RST, 7, 0))]
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(packets))
    assert lab("explain", path).stdout.startswith("10.50.1.2:40100 > 172.21.4.4:80: stalled\n  1 packet\n")


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [((), "stalled"), ((tcp(VIP, CLIENT, RST | ACK, 0, 1000),), "refused")],
)
def test_whom_nobody_answers_is_not_refused(answers, outcome, tmp_path):
    done = lab("explain", capture(tmp_path / "x.pcap", HANDSHAKE[0], *answers))
    assert done.stdout.splitlines()[0].endswith(f": {outcome}")


ACKNOWLEDGED = tcp(VIP, CLIENT, ACK, 5000, 1010)
HALF_CLOSED = (tcp(CLIENT, VIP, FIN | ACK, 1010, 5000, number=4), tcp(VIP, CLIENT, ACK, 5000, 1011))


@pytest.mark.parametrize(
    ("before", "idle", "words", "case"),
    [
        ((ACKNOWLEDGED,), 432_001, "idle for 432,001 s in ESTABLISHED, whose entry lives 432,000 s", "entry-expired"),
        ((ACKNOWLEDGED,), 86_401, "it expired, or was deleted where it lives 432,000 s", "entry-expired"),
        ((ACKNOWLEDGED,), 86_399, "it was deleted, unless a shorter timeout is set there", "entry-deleted"),
        (
            (),
            301,
            "idle for 301 s in ESTABLISHED, with something not acknowledged, whose entry lives 300 s: it expired",
            "entry-expired",
        ),
        (
            (ACKNOWLEDGED, *HALF_CLOSED),
            61,
            "entry lives 60 s by the kernel's default and 3,600 s by kube-proxy's: it expired, or was deleted",
            "entry-expired-half-closed",
        ),
        ((ACKNOWLEDGED, *HALF_CLOSED), 3601, "3,600 s by kube-proxy's: it expired;", "entry-expired-half-closed"),
        (
            (ACKNOWLEDGED, HALF_CLOSED[0]),
            121,
            "in FIN_WAIT, with something not acknowledged, whose entry lives 120 s",
            "entry-expired-half-closed",
        ),
        ((ACKNOWLEDGED,), 29, "its entry was gone (deleted, or expired)", "entry-deleted"),
    ],
)
def test_an_entry_that_expired_is_told_by_the_time_without_a_packet(before, idle, words, case, tmp_path):
    """And what the server sends again a second later leaks for the same reason."""
    packets = [(MOMENT + number, packet) for number, packet in enumerate((*HANDSHAKE, *before))]
    packets += [
        (MOMENT + (idle + later) * 10**9 + 1000, tcp(POD, CLIENT, ACK, 5000, 1010 + (len(before) > 1), b"late"))
        for later in (0, 1)
    ]
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(packets, nano=True, snaplen=40))  # of headers alone no checksum is wrong
    done = lab("explain", path, "--json")
    [connection] = json.loads(done.stdout)["connections"]
    [first, again] = [one for one in connection["findings"] if one["kind"] == "leak"]
    assert words in first["words"]
    assert (first["case"], again["case"]) == (case, case)
    assert first["words"].split(";")[0] == again["words"].split(";")[0]


def test_what_was_lost_and_sent_again_does_not_stall_what_follows(tmp_path):
    """Though the capture ends before what was sent last is acknowledged."""
    lost = tcp(CLIENT, VIP, ACK, 1010, 5000, b"lost", number=5)
    again = tcp(CLIENT, VIP, ACK, 1010, 5000, b"lost", number=6)
    acknowledged = tcp(VIP, CLIENT, ACK, 5000, 1014, number=7)
    last = tcp(CLIENT, VIP, ACK, 1014, 5000, b"on its way", number=8)
    here = capture(tmp_path / "here.pcap", *HANDSHAKE, ACKNOWLEDGED, lost, again, acknowledged, last)
    there = capture(tmp_path / "there.pcap", *HANDSHAKE, ACKNOWLEDGED, again, acknowledged, last)
    [connection] = json.loads(lab("explain", here, there, "--json").stdout)["connections"]
    assert [one["kind"] for one in connection["findings"]] == ["lost", "retransmission"]
    assert connection["outcome"] == "connected"


def test_what_was_lost_and_not_sent_again_stalls_where_the_capture_goes_on(tmp_path):
    """Right before the end of a capture, what is not there would only have come next."""
    lost = tcp(CLIENT, VIP, ACK, 1010, 5000, b"lost", number=5)
    other = (MOMENT + 10**9, tcp(("10.0.0.9", 9), ("10.0.0.8", 8), ACK, 1, 1))
    early = [(MOMENT + number * 1000, packet) for number, packet in enumerate((*HANDSHAKE, ACKNOWLEDGED, lost))]
    here, there = tmp_path / "here.pcap", tmp_path / "there.pcap"
    for more, outcome in (([other], "stalled"), ([], "connected")):
        here.write_bytes(pcap([*early, *more]))
        there.write_bytes(pcap([*early[:-1], *more]))
        assert json.loads(lab("explain", here, there, "--json").stdout)["connections"][0]["outcome"] == outcome


def test_of_very_many_packets_the_first_are_kept(tmp_path):
    again = [tcp(VIP, CLIENT, ACK, 5000, 1010, b"x" * 100)] * 2000
    done = lab("explain", capture(tmp_path / "x.pcap", *HANDSHAKE, *again), "--json")
    [connection] = json.loads(done.stdout)["connections"]
    [told] = [one for one in connection["findings"] if one["kind"] == "retransmission"]
    assert told["words"] == (
        "1,999 sent again by the server: 6, 7, 8, 9, 10, and more; not acknowledged, as far as the capture goes"
    )
    assert [place["number"] for place in told["packets"]] == [6, 7, 8, 9, 10]


def test_ctrl_c_while_a_capture_is_read(tmp_path):
    """A pipe that ends nowhere: what the reader waits for is not there yet."""
    pipe = tmp_path / "capture"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "explain", pipe], stdout=-1, stderr=-1, cwd=CHECKOUT, start_new_session=True
    )
    with pipe.open("wb", buffering=0) as end:  # waits until it is opened for reading
        data = pcap([(MOMENT, HANDSHAKE[0])] * 5000)
        while data:
            data = data[end.write(data) :]
        os.killpg(process.pid, signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert (process.returncode, output, error) == (130, b"", b"")


def test_what_a_capture_cannot_tell_is_said(tmp_path):
    path = capture(tmp_path / "middle.pcap", *HANDSHAKE[2:], tcp(VIP, CLIENT, RST, 5000, 0))
    done = lab("explain", path, COLUMNS="1000")
    assert "Its SYN is not in the capture" in done.stdout
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    done = lab("explain", path, COLUMNS="1000")
    assert f"middle.pcap: cut short at byte {len(whole) - 56}: read until there" in done.stdout


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("none.pcap",), "lab: none.pcap: cannot be read: No such file or directory\n"),
        (("text.pcap",), "lab: text.pcap:1: 'no capture' is nothing that is read here (read are pcap, pcapng, what"),
        (
            ("broken.pcap",),
            "lab: broken.pcap: is no capture (give one of pcap or pcapng, also with gzip, xz or zstd)\n",
        ),
        ((".",), "lab: .: cannot be read: Is a directory\n"),
        (("fine.pcap", "fine.pcap"), "lab: the same file twice (name each once)\n"),
        (
            ("fine.pcap", "--kernel", "newest"),
            "lab: --kernel: 'newest' is no release (such as 5.10, or what `uname -r`",
        ),
        ((), "lab: missing argument"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, error, tmp_path):
    (tmp_path / "text.pcap").write_text("no capture\n")
    (tmp_path / "broken.pcap").write_bytes(b"\0no capture\n")
    capture(tmp_path / "fine.pcap", *HANDSHAKE)
    done = lab("explain", *words, directory=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.lower().startswith(error.lower())


def test_lines_wrap_at_words_where_there_is_a_width(tmp_path):
    done = lab("explain", capture(tmp_path / "leak.pcap", *HANDSHAKE, *LEAK), COLUMNS="60")
    assert max(map(len, done.stdout.splitlines())) <= 60
    assert "\n    " in done.stdout


LOGGED = (
    "[81230.000101] nf_ct_proto_6: ACK is over the upper bound (ACKed data not seen yet) IN= OUT= SRC=10.67.2.9"
    " DST=10.67.1.4 LEN=52 TTL=63 PROTO=TCP SPT=443 DPT=47834 SEQ=1 ACK=99 WINDOW=501 ACK URGP=0\n"
)


def test_a_log_on_standard_input_is_answered():
    done = lab("explain", "-", given=LOGGED)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(
        "<stdin>:\n  * line 1: `ACK is over the upper bound (ACKed data not seen yet)`, of TCP: "
    )
    assert "Kernels that write it so: up to 6.0." in done.stdout
    assert "`lab show ack-above sack-beyond` tells more. Helps: drop-forward, be-liberal." in done.stdout
    told = json.loads(lab("explain", "-", "--json", given=LOGGED).stdout)
    assert (told["version"], told["connections"]) == (1, [])
    [remark] = told["remarks"]
    assert (remark["kind"], remark["became"], remark["lines"]) == ("reason", "INVALID", [1])


def test_reasons_are_shown_and_are_in_the_catalogue():
    shown = lab("show", "--reasons").stdout
    assert "  seq-under: ignored; up to 6.0 INVALID\n" in shown
    assert max(map(len, shown.splitlines())) <= 120
    reasons = json.loads(lab("show", "--reasons", "--json").stdout)["reasons"]
    assert json.loads(lab("list", "--json").stdout)["reasons"] == reasons
    assert {one["name"] for one in reasons} >= {"invalid-new", "sctp-tag", "table-full"}
    for words in (("--reasons", "beyond-window"), ()):
        done = lab("show", *words)
        assert (done.returncode, done.stdout) == (2, "")


def test_the_answer_that_the_page_shows_is_given():
    [shown] = [one for one in code(DOCS / "explain.md", "text") if one.startswith("dmesg.txt")]
    answered = lab("explain", "dmesg.txt", directory=CHECKOUT / "tests" / "capture" / "texts", COLUMNS="80").stdout
    assert all(line in answered.splitlines() for line in shown.splitlines())
