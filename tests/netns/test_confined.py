"""A confined program can change its own namespace's network, and nothing of the machine."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.netns import Namespace
from lab.netns.confined import OWN, ConfinedProgram
from tests.support.command import CHECKOUT

pytestmark = [pytest.mark.lab_kernel, pytest.mark.lab_needs_tool("unshare", "setpriv", "iptables-nft-save")]

PATIENCE = 20


@pytest.fixture
def namespace():
    with contextlib.closing(Namespace.create()) as made:
        yield made


@pytest.fixture
def run(namespace):
    """Run a shell script, confined, and return what it prints."""

    def run(script, **given):
        with contextlib.closing(ConfinedProgram(namespace, ("/bin/sh", "-c", script), **given)) as program:
            assert program.ends_within(PATIENCE)
            return program.words

    return run


def test_it_sets_what_is_the_namespaces_own(run, namespace):
    assert run("echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    assert namespace.sysctl("net/ipv4/ip_forward") == "1"
    assert "-A INPUT -j DROP" in run("iptables-nft -A INPUT -j DROP && iptables-nft-save")


@pytest.mark.parametrize(
    "attempt",
    [
        "echo 1 > /proc/sys/kernel/panic",
        "echo 77777 > /proc/sys/net/netfilter/nf_conntrack_max",
        "echo 77777 > /proc/sys/net/nf_conntrack_max",
        "echo h > /proc/sysrq-trigger",
        "echo 77777 > /sys/module/nf_conntrack/parameters/hashsize",
        "touch /etc/lab-was-here",
        "touch /tmp/lab-was-here",
        "mount -t tmpfs lab /mnt",
        "mount -o remount,rw /",
        "umount /proc/sys/net",
        "hostname lab-was-here",
        "mknod /run/disk b 254 0",
        "nsenter --net=/proc/STARTER/ns/net true",
        "kill -0 STARTER",
        "nsenter --target 1 --mount true",
    ],
)
def test_it_cannot(run, attempt):
    hostname = os.uname().nodename
    attempt = attempt.replace("STARTER", str(os.getpid()))
    assert run(f"({attempt}) 2>/dev/null && echo done") == ""
    assert os.uname().nodename == hostname
    assert not Path("/etc/lab-was-here").exists()
    assert not Path("/tmp/lab-was-here").exists()


def test_it_has_no_capability_but_those_over_its_network(run):
    words = run("grep Cap /proc/self/status")
    # DAC_OVERRIDE, DAC_READ_SEARCH, NET_BIND_SERVICE, NET_ADMIN, NET_RAW
    sets = dict(line.split(":\t") for line in words.splitlines())
    assert {sets[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0000000000003406"}


def test_it_sees_nothing_of_the_machine(run):
    assert run("echo $$; ls /run; ls /dev") == "1\nlab\nfd\nfull\nnull\nrandom\nurandom\nzero\n"
    assert run("ls -d /proc/[0-9]*") == "/proc/1\n"


def test_files_and_links_are_its_own(run):
    words = run(f"cat {OWN}/told && which kept", files={"told": "text\n"}, links={"kept": "/bin/cat"})
    assert words == f"text\n{OWN}/bin/kept\n"
    assert not OWN.joinpath("told").exists()


def test_a_program_below_the_machines_run_is_found(namespace, tmp_path):
    """It is looked up before the machine's /run is gone."""
    place = Path("/run/user-of-lab-tests") if os.access("/run", os.W_OK) else tmp_path
    place.mkdir(exist_ok=True)
    script = place / "program"
    try:
        script.write_text('#!/bin/sh\necho "$0 $1"\n')
        script.chmod(0o755)
        with contextlib.closing(ConfinedProgram(namespace, (str(script), "word"))) as program:
            assert program.ends_within(PATIENCE)
            assert program.words == f"{OWN}/program/program word\n"
    finally:
        script.unlink()
        if place != tmp_path:
            place.rmdir()


def test_what_cannot_be_executed_says_so(namespace, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("nothing")
    with contextlib.closing(ConfinedProgram(namespace, (str(plain),))) as program:
        assert program.ends_within(PATIENCE)
        assert program.exit_code == 125
        assert "Permission denied" in program.words


def test_closing_ends_it_and_all_that_it_started(namespace):
    program = ConfinedProgram(namespace, ("/bin/sh", "-c", "sleep 1000 & sleep 1000"))
    found = _await(lambda: _sleepers(namespace.inode))
    assert not program.is_idle  # it has children
    program.close()
    assert [pid for pid in found if Path(f"/proc/{pid}").exists()] == []


def test_it_is_idle_while_it_waits(namespace):
    with contextlib.closing(ConfinedProgram(namespace, ("/bin/sh", "-c", "read word < /proc/self/fd/1"))) as program:
        assert not program.ends_within(0)
    with contextlib.closing(ConfinedProgram(namespace, ("/bin/sleep", "1000"))) as program:
        _await(lambda: program.is_idle)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_it_ends_with_who_started_it(number):
    script = (
        "from lab.netns import Namespace, userns\n"
        "from lab.netns.confined import ConfinedProgram\n"
        "userns.ensure()\n"
        "namespace = Namespace.create()\n"
        "program = ConfinedProgram(namespace, ('/bin/sh', '-c', 'sleep 1000 & sleep 1000'))\n"
        "print(namespace.inode, flush=True)\n"
        "program.ends_within(1000)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert starter.stdout is not None
    inode = int(starter.stdout.readline())
    with contextlib.ExitStack() as stack:
        running = [_held(stack, pid) for pid in _await(lambda: _sleepers(inode))]
        starter.send_signal(number)
        starter.wait()
        starter.stdout.close()
        for one in running:
            assert select.select([one], [], [], PATIENCE)[0]  # it has ended


def _held(stack, pid):
    """Return a descriptor of a process: its number, and its namespace's, may be another's by the next moment."""
    descriptor = os.pidfd_open(int(pid))
    stack.callback(os.close, descriptor)
    return descriptor


def _sleepers(inode):
    found = _inside(inode)
    return found if sum("sleep" in Path(f"/proc/{pid}/comm").read_text() for pid in found) == 2 else []


def _inside(inode):
    """Return the processes in a network namespace, but for the one that asks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "ns/net").stat().st_ino == inode:
                found.append(path.name)
    return found


def _await(question):
    """Ask until the answer is yes."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if answer := question():
            return answer
        os.sched_yield()
    raise AssertionError("in vain")
