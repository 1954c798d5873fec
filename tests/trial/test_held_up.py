"""A trial that the machine kept from running is tried again, for entries expire and bounds pass meanwhile."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from lab.cases import find
from lab.cases.case import always, on_every_kernel
from lab.errors import HeldUpWarning
from lab.fixes import NONE
from lab.netns import bound
from lab.report.timeline import timeline_text
from lab.scenario.datagrams import DatagramsScenario
from lab.topology.reader import load
from lab.trial import runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family

pytestmark = pytest.mark.lab_kernel

STOPPED = 2.5  # seconds: longer than a trial may be kept waiting, and than its entry lives below

#: Runs one trial, whose first attempts, as many as are said, stop themselves where the entry has two seconds left.
SCRIPT = """
import asyncio, dataclasses, os, signal, sys
from lab.cases import find
from lab.cases.case import always, on_every_kernel
from lab.errors import LabError, tell_warnings
from lab.fixes import NONE
from lab.netns import bound, userns
from lab.topology.reader import load
from lab.trial import runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family

stops = [True] * int(sys.argv[1])

async def steps(scenario):
    await scenario.establish()
    scenario.set_node_sysctl("net/netfilter/nf_conntrack_tcp_timeout_established", 2)
    await scenario.client_speaks(judged=False)
    if stops and stops.pop():
        os.kill(os.getpid(), signal.SIGSTOP)
    scenario.expect_entry(state="ESTABLISHED")
    await scenario.go_on()

userns.ensure()
tell_warnings()
bound.SECONDS = 2.0
expected = on_every_kernel(always(None, Outcome.CONNECTED))
case = dataclasses.replace(find("in-window"), steps=steps, expectations=expected)
setting = Setting(case, NONE, load("kube-proxy"), Family.IPV4)
seen = []
try:
    result = asyncio.run(runner.run(setting, Behaviour.IGNORES_LATE, seen.append))
    print(result.verdict.outcome, result.as_expected)
except LabError as error:
    print(f"{type(error).__name__}: {error}")
print(len(seen))
"""


def run(stops):
    """Run the trial; stop it as often as it asks for, and return what it said."""
    command = [sys.executable, "-c", SCRIPT, str(stops)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(stops):
            _pid, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            time.sleep(STOPPED)
            process.send_signal(signal.SIGCONT)
        return process.communicate(timeout=60)


def test_one_that_was_held_up_is_tried_again():
    said, warned = run(1)
    assert said.splitlines() == ["connected True", "2"]
    [line] = warned.splitlines()
    assert line.startswith("lab: in-window with none is tried again: the machine kept the trial from running for ")
    assert " s, while all time-outs went on: reset (" in line
    assert "expected a conntrack entry, state ESTABLISHED, but it is none" in line


def test_one_that_was_held_up_twice_is_not_as_expected_and_says_so():
    said, warned = run(2)
    assert said.splitlines() == ["reset False", "2"]
    assert len(warned.splitlines()) == 1


def test_a_datagrams_entry_that_lost_a_clash_lives_for_a_second_only(monkeypatch):
    case = find("dns-race-two-endpoints")
    setting = Setting(case, NONE, load(case.topology), Family.IPV4)
    release, held_up = DatagramsScenario.release, [1.5]

    def slowly(scenario, *packets):
        release(scenario, *packets)
        time.sleep(held_up.pop() if held_up else 0)

    monkeypatch.setattr(DatagramsScenario, "release", slowly)
    with pytest.warns(HeldUpWarning, match=r"kept the trial from running for \d\.\d s, .* went on: leaked \(NEW, "):
        assert asyncio.run(runner.run(setting, Behaviour.IGNORES_LATE)).as_expected


def test_an_end_that_failed_while_the_other_was_waited_for_is_asked(monkeypatch):
    monkeypatch.setattr(bound, "SECONDS", 2.0)

    async def steps(scenario):
        await scenario.establish()
        scenario.forget_entry()
        await scenario.go_on()

    case = dataclasses.replace(
        find("in-window"), steps=steps, expectations=on_every_kernel(always(None, Outcome.RESET))
    )
    setting = Setting(case, NONE, load("kube-proxy"), Family.IPV4)
    result = asyncio.run(runner.run(setting, Behaviour.IGNORES_LATE))
    assert result.as_expected, result.verdict
    assert result.verdict.because[0] == "a later packet leaked, RST, ECONNRESET"
    assert result.timeline.standstill
    told = timeline_text(dataclasses.replace(result.timeline, held_up=7.0))
    assert "the machine kept the trial from running for 7.0 s, while all time-outs went on" in told
