"""`lab capture`: what passes a lab that stands, live, as tshark reads it."""

from __future__ import annotations

import os
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

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 30.0  # seconds; the end of a wait that an event ends at once
needs_tshark = pytest.mark.skipif(
    shutil.which("tshark") is None, reason="tshark is not installed: apt-get install tshark"
)


@pytest.fixture
def capturing():
    """Starts `lab capture`, and returns it when it sees packets, with what it said of itself."""
    with ExitStack() as stack:

        def start(*arguments, **settings):
            command = [sys.executable, "-m", "lab", "capture", *arguments]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **settings))
            stack.callback(process.kill)
            return process, process.stderr.readline()

        yield start


def interrupted(process):
    process.send_signal(signal.SIGINT)
    code = process.wait(PATIENCE)
    return code, process.stderr.read()


def ask(vip="192.168.0.2"):
    asked = "import socket,sys; s = socket.create_connection((sys.argv[1], 80)); s.send(b'GET / HTTP/1.1\\r\\n\\r\\n')"
    ran = lab_command("exec", "client", "--", sys.executable, "-c", f"{asked}; print(s.recv(4096))", vip)
    assert "server" in ran.stdout, ran.stderr


def read(*arguments, **settings):
    done = subprocess.run(
        ["tshark", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=True, **settings
    )
    assert "cut short" not in done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def lab(own_run):
    return up(load("kube-proxy"))


@needs_tshark
def test_a_file_that_tshark_reads_with_every_interface_that_a_packet_passed(lab, capturing, tmp_path):
    file = tmp_path / "web.pcapng"
    process, said = capturing(file)
    assert said == f"lab: capturing at 7 interfaces of the lab kube-proxy into {file}; Ctrl-C ends it\n"
    ask()
    ask("fd00:192:168::2")
    code, said = interrupted(process)
    assert (code, said) == (0, f"lab: {len(read('-r', file))} packets\n")
    fields = ("frame.interface_name", "ip.dst", "tcp.flags.str", "frame.time_epoch")
    options = [word for field in fields for word in ("-e", field)]
    rows = [line.split("\t") for line in read("-r", file, "-Y", "ip and tcp.flags.syn == 1", "-T", "fields", *options)]
    syns = [(where, to) for where, to, flags, _time in rows if "A" not in flags]
    assert syns == [
        ("client:eth0", "192.168.0.2"),
        ("node:client", "192.168.0.2"),
        ("node:server", "10.0.1.2"),
        ("server:eth0", "10.0.1.2"),
    ]
    times = [float(time) for _where, _to, _flags, time in rows]
    assert times == sorted(times)
    assert read("-r", file, "-Y", "ipv6 and tcp.flags.syn == 1")


@needs_tshark
def test_a_pipe_has_packets_while_they_pass(lab, capturing):
    process, _said = capturing("--host", "node", stdout=subprocess.PIPE)
    reader = subprocess.Popen(
        ["tshark", "-l", "-r", "-", "-Y", "tcp.flags.syn == 1", "-T", "fields", "-e", "frame.interface_name"],
        stdin=process.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    process.stdout.close()
    ask()
    # It has not ended, and has the first packets already.
    assert [reader.stdout.readline() for _ in range(2)] == ["node:client\n", "node:server\n"]
    assert process.poll() is None
    assert interrupted(process)[0] == 0
    reader.communicate(timeout=PATIENCE)


def test_a_reader_that_goes_ends_it_though_nothing_passes(lab, capturing):
    process, _said = capturing(stdout=subprocess.PIPE)
    assert os.read(process.stdout.fileno(), 4)
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == ""


@needs_tshark
def test_one_that_reaches_its_limit_ends_whole(lab, capturing, tmp_path):
    file = tmp_path / "web.pcapng"
    process, _said = capturing(file)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (3000, 3000))
    while process.poll() is None:
        ask()
    written, why = process.stderr.read().splitlines()
    assert process.returncode == 2
    assert written == f"lab: {len(read('-r', file))} packets, as far as it was written"
    assert why == (
        f"lab: cannot write {file}: File too large (this process may write 3000 bytes to a file: `ulimit -f` raises it)"
    )


def test_one_that_is_removed_ends_it(lab, capturing, tmp_path):
    file = tmp_path / "web.pcapng"
    process, _said = capturing(file)
    file.unlink()
    ask()
    assert process.wait(PATIENCE) == 2
    assert process.stderr.read().endswith(f"lab: cannot write {file}: it was removed\n")


def test_it_ends_with_its_lab(lab, capturing, tmp_path):
    process, _said = capturing(tmp_path / "web.pcapng")
    commands.down(lab)
    assert process.wait(PATIENCE) == 0
    assert (tmp_path / "web.pcapng").stat().st_size > 100


@needs_tshark
def test_the_name_of_a_lab_is_no_file(lab, capturing, tmp_path):
    process, said = capturing("kube-proxy", stdout=subprocess.PIPE, cwd=tmp_path)
    assert said == "lab: capturing at 7 interfaces of the lab kube-proxy; Ctrl-C ends it\n"
    ask()
    process.send_signal(signal.SIGINT)
    assert len(process.stdout.buffer.read()) > 1000
    assert process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_lab_and_a_file(lab, capturing, tmp_path):
    process, said = capturing("kube-proxy", "web", cwd=tmp_path)
    assert said == "lab: capturing at 7 interfaces of the lab kube-proxy into web; Ctrl-C ends it\n"
    ask()
    assert interrupted(process)[0] == 0
    assert (tmp_path / "web").stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "no lab 'nosuch' stands (known: kube-proxy; for a file nosuch.pcapng or ./nosuch)"),
        (["nosuch", "x.pcapng"], "no lab 'nosuch' stands (known: kube-proxy)"),
        (
            ["web", "--lab", "kube-proxy"],
            "a lab by 'web' and by --lab 'kube-proxy' (name it once; for a file web.pcapng or ./web)",
        ),
    ],
)
def test_a_word_that_is_neither_a_lab_nor_like_a_file_is_refused(lab, arguments, says, tmp_path):
    ran = lab_command("capture", *arguments, directory=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"lab: {says}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_is_said_in_a_line(lab, tmp_path):
    for arguments, says in (
        (("--host", "nope"), "lab: the lab kube-proxy has no host 'nope' (did you mean 'node'?)\n"),
        ((tmp_path / "no" / "file",), f"lab: cannot write {tmp_path}/no/file: No such file or directory\n"),
        (
            ("/dev/full",),
            "lab: cannot write /dev/full: No space left on device (make room there, or have it written elsewhere)\n",
        ),
    ):
        ran = lab_command("capture", *arguments)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.endswith(says)


def test_a_terminal_is_spared(lab, capturing):
    ours, its = os.openpty()
    process, said = capturing(stdout=its)
    os.close(its)
    assert process.wait(PATIENCE) == 2
    assert said == (
        "lab: a capture is no text, and standard output is a terminal"
        " (name a file, or pipe it: `lab capture | wireshark -k -i -`)\n"
    )
    with pytest.raises(OSError, match="Input/output error"):  # nothing was written there before it was closed
        os.read(ours, 1)
    os.close(ours)
