"""The soak under load: it disturbs, and it says what was not as expected."""

import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import python

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WRONG = """
import argparse, dataclasses, soak
from lab.cases.case import KILLED_ALWAYS, on_every_kernel
find = soak.find
soak.find = lambda name: dataclasses.replace(find(name), expectations=on_every_kernel(KILLED_ALWAYS))
"""
MAIN = "import soak; sys.exit(soak.main(soak.PARSER.parse_args()))"


def soak(*arguments, before=""):
    script = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n{before}\n{MAIN}"
    return python("-c", script, *arguments)


@pytest.mark.lab_kernel
def test_it_passes_where_all_is_as_expected():
    done = soak("in-window", "without-nat", "--fix", "none", "--rounds", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 trials in" in done.stdout
    assert ", 0 not as expected" in done.stdout


@pytest.mark.lab_kernel
def test_it_says_what_was_not_as_expected():
    done = soak("in-window", "--fix", "none", "--rounds", "2", before=WRONG)
    assert done.returncode == 1
    assert "in-window, fix none, run 1: delivered (accepted, came from 192.168.0.2)" in done.stdout
    assert "> node client  10.0.0.2:34567 > 192.168.0.2:80  SYN seq 0" in done.stdout
    assert "in-window, fix none: 2 of 2" in done.stdout


@pytest.mark.lab_kernel
def test_one_trial_is_soaked_as_it_is_run():
    words = "--fix drop-forward --topology congested --proxy-mode nftables --proxy-version v1.33 --family ipv6"
    done = soak("in-window", *words.split(), "--rounds", "1", before=WRONG)
    assert done.returncode == 1
    assert "> node client    [fd00:10::2]:34567 > [fd00:192:168::2]:80  SYN seq 0" in done.stdout


def test_it_stops_and_continues(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from soak import disturbed

    ear, mouth = os.pipe()
    continued = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGCONT, lambda *_: os.write(1, b'c'))\n"
        "signal.alarm(30)\n"
        "os.write(1, b'r')\n"
        "while True: signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", continued], stdout=mouth) as process:
        os.close(mouth)
        assert os.read(ear, 1) == b"r"
        outcomes = disturbed(process.pid, Told(ear, 3), random.Random(1))
        assert list(outcomes) == [b"c"] * 3
        process.send_signal(signal.SIGKILL)
    os.close(ear)


class Told:
    """A pipe's end as `disturbed` reads it, closed after so many bytes."""

    def __init__(self, ear, count):
        self.ear, self.left = ear, count

    def poll(self, seconds):
        return bool(select.select([self.ear], [], [], seconds)[0]) or self.left == 0

    def recv(self):
        self.left -= 1
        if self.left < 0:
            raise EOFError
        return os.read(self.ear, 1)
