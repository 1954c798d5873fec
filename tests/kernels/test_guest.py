"""A guest's life as the machine sees it: any program that writes to a console will do in QEMU's place."""

import asyncio
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.kernels import Image, guest
from lab.kernels import watch as watching
from lab.kernels.guest import run_in_guest
from lab.kernels.kernel import Kernel
from lab.kernels.watch import End, watch

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL = Kernel("6.1", "6.1.0-56-cloud-amd64", "6.1.192", Path("vmlinuz"), Path("modules"))

needs_setpriv = pytest.mark.lab_needs_tool("setpriv")


def shell(script, **options):
    return asyncio.run(watch(["sh", "-c", script], (), **options))


@needs_setpriv
def test_the_console_comes_without_signs_of_life():
    end = shell(r"printf 'one\r\n\0\0two\n'; exit 3", limit=30)
    assert end == End(["one", "two"], "", 3)


@needs_setpriv
def test_silence_is_a_hang_and_a_sign_of_life_is_none(monkeypatch):
    monkeypatch.setattr(watching, "SILENCE", 1.0)
    monkeypatch.setattr(watching, "_SHORT_SILENCE", 0.5)
    assert shell("echo up; exec sleep 100", limit=100).stopped == "hung: no sign of life for 1 s"
    alive = shell(r"echo up; while printf '\0'; do sleep 0.1; done", limit=2)
    assert alive == End(["up"], "out of time: not finished after 2 s", -signal.SIGKILL)


@needs_setpriv
@pytest.mark.lab_needs_tool("chrt", "taskset")
def test_who_waits_for_a_processor_is_not_silent():
    """A program that gets what others leave of one processor (SCHED_IDLE), and one that leaves nothing."""
    processor = str(min(os.sched_getaffinity(0)))
    pinned = ["taskset", "-c", processor]
    count = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; echo up"
    other = subprocess.Popen([*pinned, "sh", "-c", "while :; do :; done"])
    try:
        end = asyncio.run(watch([*pinned, "chrt", "-i", "0", "sh", "-c", count], (), limit=500, silence=1.0))
    finally:
        other.kill()
        other.wait()
    assert end == End(["up"], "", 0)


@needs_setpriv
def test_an_awaited_word_ends_the_guest():
    started = time.monotonic()
    assert shell("echo up; exec sleep 100", limit=50, until="up").lines == ["up"]
    assert time.monotonic() - started < 50


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_dead(process):
    """The kernel needs a moment from the signal to the end."""
    deadline = time.monotonic() + 30
    while is_alive(process):
        assert time.monotonic() < deadline, f"{process} still runs"
        os.sched_yield()


@needs_setpriv
def test_a_guest_ends_with_the_task_that_awaits_it(tmp_path):
    async def cancelled():
        task = asyncio.create_task(watch(["sh", "-c", "echo $$ >pid.new; mv pid.new pid; sleep 100"], (), limit=100))
        while not Path("pid").exists():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        asyncio.run(cancelled())
        assert not is_alive(int(Path("pid").read_text()))
    finally:
        os.chdir(here)


@needs_setpriv
def test_a_guest_ends_with_a_process_that_was_killed():
    reading, writing = os.pipe()
    program = f"""
import asyncio
from lab.kernels.watch import watch
script = "echo $$ >/proc/self/fd/{writing}; exec sleep 100"
asyncio.run(watch(["sh", "-c", script], ({writing},), limit=100))
"""
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=CHECKOUT, pass_fds=(writing,))
    os.close(writing)
    guests = int(os.read(reading, 100))
    os.close(reading)
    assert is_alive(guests)
    owner.kill()
    owner.wait()
    until_dead(guests)


@pytest.mark.parametrize(
    ("console", "stopped", "exit_code", "failure"),
    [
        ("[    3.1] Run /init as init process", "", 0, ""),
        ("", "hung: no sign of life for 60 s", None, "hung: no sign of life for 60 s"),
        ("[ 6.9] Kernel panic - not syncing: sysrq triggered crash", "", None, "panicked: sysrq triggered crash"),
        (
            "[ 9.1] Out of memory: Killed process 133 (python3) total-vm:451712kB, anon-rss:440240kB",
            "",
            137,
            "out of memory: Killed process 133 (python3)",
        ),
        (
            "[ 9.1] Kernel panic - not syncing: System is deadlocked on memory",
            "",
            None,
            "out of memory: nothing was left to kill",
        ),
        ("[ 9.1] Memory cgroup out of memory: Killed process 9 (a) total-vm:1kB", "", 0, ""),
        ("lab: guest: no overlay", "", None, "ended: no overlay"),
        ("[ 0.1] Linux version 6.1", "", None, "ended: the guest stopped before its command did"),
    ],
)
def test_what_happened_to_a_guest(console, stopped, exit_code, failure):
    assert guest._failure(End(console.splitlines(), stopped, 0), exit_code, KERNEL) == failure


def test_a_qemu_that_does_not_start():
    end = End(["qemu-system-x86_64: could not load kernel 'x'"], "", 1)
    with pytest.raises(LabError, match=r"QEMU does not start a guest with 6\.1: .*could not load kernel"):
        guest._failure(end, None, KERNEL)


def results(*, cut=0):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in (("./exit-code", b"3\n"), ("./files/a/b", b"\0" * 5000), ("./files/c", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    file.truncate(len(file.getvalue()) - cut)
    return file


def test_results_come_back():
    assert guest._unpack(results()) == (3, {"a/b": b"\0" * 5000, "c": b""})


@pytest.mark.parametrize("file", [io.BytesIO(b"\0" * 10240), results(cut=8000)])
def test_results_that_were_not_written_to_the_end_are_none(file):
    assert guest._unpack(file) == (None, {})


@needs_setpriv
def test_a_guest_has_its_memory_and_no_network_and_only_reads_the_machines_disks(tmp_path, monkeypatch):
    """A program in QEMU's place says what it was asked for."""
    (tmp_path / "qemu-system-x86_64").write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    image = Image(*(tmp_path / name for name in Image.__annotations__))
    run = asyncio.run(run_in_guest(KERNEL, ["true"], image=image, limit=60, accelerator="tcg"))
    words = run.console.splitlines()
    given = list(itertools.pairwise(words))
    assert ("-m", "512") in given
    assert ("-nic", "none") in given
    assert "-nodefaults" in words
    assert not [word for word in words if "net" in word]
    writable = [word for option, word in given if option == "-drive" and "read-only=off" in word]
    assert [re.findall(r"id=(\w+),file=/proc/self/fd/", word) for word in writable] == [["results"]]
