"""`lab watch` as a command: a line each, for programs, and on a node that is only read."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from lab.standing import commands
from lab.standing.up import up
from lab.topology.reader import load
from tests.support.command import lab as lab_command
from tests.support.documents import check

PATIENCE = 60.0  # seconds; the end of a wait that an event ends at once
needs_root = pytest.mark.lab_needs_root

#: What a look at a node must not change: rules, links with their promiscuity, addresses, sysctls.
LOOK = (
    "nft list ruleset; iptables-nft-save; iptables-legacy-save 2>/dev/null; ip -d link; ip address; ip route;"
    " sysctl -a 2>/dev/null | grep -E '^net\\.'; cat /proc/net/dev_mcast"
)
#: In it, what changes by itself: counters, ages and what is left of times.
PASSING = re.compile(
    r"packets \d+ bytes \d+|\[\d+:\d+\]|^#.*$|(valid|preferred)_lft \w+|.*nf_conntrack_count.*|.*random.*uuid.*"
    r"|gc_timer +\S+",
    re.MULTILINE,
)


@pytest.fixture
def watching():
    """Starts `lab watch`, in a host where one is named, and returns it when it looks on, with what it said."""
    with ExitStack() as stack:

        def start(*arguments, host=None, **settings):
            command = [sys.executable, "-m", "lab", "watch", *arguments]
            if host is not None:
                command = [sys.executable, "-m", "lab", "exec", host, "--", *command]
            settings = {"stdout": subprocess.PIPE, **settings}
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **settings))
            stack.callback(process.kill)
            return process, process.stderr.readline()

        yield start


def interrupted(process):
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=PATIENCE)
    return process.returncode, printed, said


def inject(case="beyond-window"):
    ran = lab_command("inject", case)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def lab(own_run):
    return up(load("kube-proxy"))


@needs_root
def test_where_standard_error_is_no_terminal_there_is_no_screen(lab, watching):
    ours, its = os.openpty()
    try:
        process, said = watching("--for", "1ms", stdin=its, stdout=its, env={**os.environ, "TERM": "xterm"})
        _printed, rest = process.communicate(timeout=PATIENCE)
    finally:
        os.close(ours)
        os.close(its)
    assert said.startswith("lab: watching the lab kube-proxy")
    assert (process.returncode, "\x1b" in rest) == (0, False)


@needs_root
def test_packets_entries_and_what_is_wrong_a_line_each(lab, watching):
    process, said = watching()
    assert said == "lab: watching the lab kube-proxy; Ctrl-C ends it\n"
    inject()
    code, printed, said = interrupted(process)
    assert code == 0
    vip = "10.0.0.2:345.. > 192.168.0.2:80"
    for words in (
        rf"client eth0 >  {vip} SYN",
        rf"node client <  {vip} SYN",
        r"server eth0 <  10.0.0.2:345.. > 10.0.1.2:80 SYN",
        rf"node conntrack  new tcp SYN_SENT {vip} = 10.0.1.2:80",
        r"node client >  LEAK  10.0.1.2:80 > .* only knows 192.168.0.2:80. Its entry: ESTABLISHED; INVALID by",
        r"node client <  RESET  10.0.0.2:345.. > 10.0.1.2:80 RST",
    ):
        assert len(re.findall(rf"^\d\d:\d\d:\d\d\.\d{{6}}  {words}", printed, re.MULTILINE)) == 1, words
    assert re.search(r"lab: SUFFERS: .* 1 packet left untranslated and 1 RST answered", said)


@needs_root
def test_a_program_reads_json_and_only_of_the_flow_that_it_wants(lab, watching):
    process, _said = watching("--json", "--host", "node", "--flow", "192.168.0.2:80")
    inject()
    assert lab_command("exec", "client", "--", "curl", "-s", "http://10.0.1.2").returncode == 0
    code, printed, _said = interrupted(process)
    begin, *told = [json.loads(line) for line in printed.splitlines()]
    assert code == 0
    assert begin == {"kind": "begin", "version": 1, "watching": "the lab kube-proxy", "only_found": False}
    for line in (begin, *told):
        check("watch", line)
    assert {one["kind"] for one in told} == {"packet", "entry", "leak", "reset", "answer"}
    assert {one["host"] for one in told[:-1]} == {"node"}
    [leak] = [one for one in told if one["kind"] == "leak"]
    assert leak["model"]["judgement"] == "INVALID"
    assert (leak["target"], leak["endpoint"], leak["entry"]) == ("192.168.0.2:80", "10.0.1.2:80", "ESTABLISHED")
    clients = {one["client"] for one in told if one["kind"] == "entry"}
    assert clients == {leak["client"]}
    answer = told[-1]
    assert (answer["answer"], answer["leaks"], answer["resets"]) == ("suffers", 1, 1)
    assert answer["by_service"][0]["clients"] == {"10.0.0.2": 2}


@needs_root
def test_a_node_that_suffers_is_found_counted_saved_and_published(lab, watching, tmp_path):
    capture, counts = tmp_path / "leaks.pcapng", tmp_path / "lab.prom"
    process, said = watching("--here", "--save", capture, "--prometheus", counts, host="node")
    assert "watching this machine; leaks and resets alone are printed" in said
    assert "kube_proxy_lab_leaked_packets_total 0\n" in counts.read_text()
    inject()
    inject("in-window")
    inject()
    code, printed, said = interrupted(process)
    assert code == 1
    lines = printed.splitlines()
    assert [line.split()[4] for line in lines[:4]] == ["LEAK", "RESET"] * 2
    assert sum("  LEAK  " in line for line in lines) == sum("  RESET  " in line for line in lines) == 2
    assert re.match(r"SUFFERS: in .* s, on 3 connections to Services, 2 packets left untranslated and 2 RSTs", lines[4])
    assert lines[5] == "  192.168.0.2:80 = 10.0.1.2:80: 2 leaks, 2 resets, towards 10.0.0.2 (4)"
    labels = '{service="192.168.0.2:80",endpoint="10.0.1.2:80"}'
    text = counts.read_text()
    for name in ("leaked_packets_total", "resets_total", "affected_connections_total"):
        assert f"kube_proxy_lab_{name}{labels} 2\n" in text
    assert "kube_proxy_lab_connections_total 3\n" in text
    assert {*os.listdir(tmp_path)} == {"leaks.pcapng", "lab.prom"}
    explained = json.loads(lab_command("explain", "--json", capture).stdout)
    assert [one["outcome"] for one in explained["connections"]] == ["reset", "reset"]


@needs_root
def test_files_that_can_no_longer_be_written_are_said_and_the_answer_stays(lab, watching, tmp_path):
    place = tmp_path / "gone"
    place.mkdir()
    capture, counts = place / "leaks.pcapng", place / "lab.prom"
    process, _said = watching("--here", "--save", capture, "--prometheus", counts, host="node")
    shutil.rmtree(place)
    assert process.stderr.readline() == f"lab: cannot write {capture}: it was removed; the watch goes on\n"
    inject()
    code, printed, said = interrupted(process)
    assert code == 1
    assert re.search(
        r"^SUFFERS: in .* s, on 1 connection to Services, 1 packet left untranslated", printed, re.MULTILINE
    )
    assert said.splitlines() == [
        f"lab: cannot write {counts}: No such file or directory; the watch goes on",
        f"lab: {capture} was not written to the end: it was removed",
        f"lab: {counts} was not written to the end: No such file or directory",
        "lab: 0 packets of connections that leaked were saved",
    ]


@needs_root
def test_a_capture_that_reaches_its_limit_stays_whole(lab, watching, tmp_path):
    capture = tmp_path / "leaks.pcapng"
    process, _said = watching("--here", "--save", capture, host="node")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (400, 400))
    inject()
    code, _printed, said = interrupted(process)
    assert code == 1
    why = "File too large (this process may write 400 bytes to a file: `ulimit -f` raises it)"
    assert f"lab: cannot write {capture}: {why}; the watch goes on\n" in said
    assert said.endswith("lab: 0 packets of connections that leaked were saved\n")
    assert subprocess.run(["tshark", "-r", capture], capture_output=True, text=True).returncode == 0


@needs_root
def test_a_node_that_drops_what_is_invalid_has_none(own_run, watching):
    up(load("kube-proxy"), fix="drop-forward")
    process, _said = watching("--here", host="node")
    inject()
    code, printed, _said = interrupted(process)
    assert code == 0
    assert re.fullmatch(r"NONE: in .* s, on 1 connection to Services, no packet left untranslated\.\n", printed)


@needs_root
def test_nothing_on_a_node_changes(lab, watching):
    def look():
        ran = subprocess.run(
            [sys.executable, "-m", "lab", "exec", "node", "--", "sh", "-c", LOOK], capture_output=True, text=True
        )
        assert "promiscuity 0" in ran.stdout
        return PASSING.sub("", ran.stdout)

    before = look()
    process, _said = watching("--here", host="node")
    during = look()
    code, printed, _said = interrupted(process)
    assert before == during == look()
    assert code == 2
    assert re.fullmatch(r"NOT KNOWN: in .* s no packet of a connection through a Service was seen\.\n", printed)


@needs_root
def test_its_end_is_told(lab, watching):
    process, _said = watching()
    commands.down(lab)
    _printed, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert said.startswith("lab: the lab kube-proxy has ended\n")


@needs_root
def test_it_ends_after_its_time_and_with_its_reader(lab, watching):
    process, said = watching("--for", "300ms")
    assert re.search(r"until \d\d:\d\d:\d\d; Ctrl-C ends it before", said)
    assert process.wait(PATIENCE) == 0
    process, _said = watching()
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--here", "fixed"), "--here is this machine, and a lab 'fixed' besides (give one of them)"),
        (("--here", "--host", "node"), "--here is this machine, and --host besides (give one of them)"),
        (("--for", "soon"), "--for: 'soon' is no time (such as 30s, 10m or 1h30m)"),
        (("--for", "0s"), "--for: '0s' is no time (such as 30s, 10m or 1h30m)"),
        (("--flow", "web"), "'web' is no address (write 10.0.0.1, 10.0.0.1:80, [fd00::1]:80 or :80)"),
        (("--here", "--save", "-"), "--save: standard output has the lines (name a file)"),
        (("--here", "--save", "/no/such/file"), "cannot write /no/such/file: No such file or directory"),
        (
            ("--here", "--prometheus", "counts.txt"),
            "--prometheus: node_exporter reads *.prom alone, not counts.txt (name it so)",
        ),
        (
            ("--here", "--prometheus", "/no/such/file.prom"),
            "cannot write /no/such/file.prom: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments, words):
    ran = lab_command("watch", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"lab: {words}\n")


@needs_root
def test_an_ordinary_user_is_told_what_it_needs(tmp_path):
    command = [sys.executable, "-m", "lab", "watch", "--here"]
    ran = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "lab: the machine's packets are root's to see: sudo lab watch --here\n"
