"""A batch in several processes: what comes of it is what comes of it in one, and nothing of it is left behind."""

import os
import pickle
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import InputError, LabError, MachineError, MissingError, UnknownNameError
from lab.results.saved import from_json
from tests.support.command import lab, python

NAMES = ["in-window", "beyond-window", "no-ack-flag"]

ONE_PROCESS = "memory, perhaps; --jobs 1 runs all in one process"

BEGINNING = """
import asyncio, dataclasses, os, select, signal
from lab.cases import find
from lab.errors import LabError, MachineError, MissingError, warn
from lab.fixes import FIXES
from lab.netns import userns
from lab.topology.reader import load
from lab.trial import batch, workers
from lab.trial.setting import Setting
from lab.vocabulary import Family

async def healthy(scenario):
    await scenario.establish()
    await scenario.go_on()

def setting(steps, fix="none", **changes):
    case = dataclasses.replace(find("in-window"), steps=steps, **changes)
    return Setting(case, FIXES[fix], load("kube-proxy"), Family.IPV4)

def tried(*settings):
    with workers.started(settings, 100, 2) as runner:
        assert runner.room == 2
        return asyncio.run(batch.run(settings, Family.IPV4, 1, runner)).tallies

userns.ensure()
"""

pytestmark = pytest.mark.lab_kernel


def script(text):
    """Run a program that begins so, and return what it prints and says."""
    done = python("-c", BEGINNING + text)
    assert done.returncode == 0, done.stderr
    return done


def plain(tallies):
    """What has to be the same of tallies, however they came about."""
    return [
        (one.trial, one.runs, one.outcomes, one.failure, one.missing, one.sample and one.sample.verdict.judgement)
        for one in tallies
    ]


def test_several_processes_give_what_one_gives(tmp_path):
    reports, printed = [], []
    for jobs in ("1", "3"):
        path = tmp_path / f"{jobs}.json"
        fixes = ("--fix=none", "--fix=be-liberal")
        done = lab("run", *NAMES, *fixes, "--repeat", "3", "--no-timeline", "-j", jobs, "--json", path)
        assert (done.returncode, done.stderr) == (0, "")
        reports.append(from_json(path.read_text()))
        printed.append(done.stdout)
    one, several = reports
    assert printed[0] == printed[1]
    assert plain(one.tallies) == plain(several.tallies)
    assert [tally.runs for tally in several.tallies] == [3] * 6
    assert all(tally.seconds > 0 for tally in several.tallies)


def test_trials_run_side_by_side():
    """Each waits for the other's word."""
    text = """
here, there = os.pipe(), os.pipe()

def waiting(ear, mouth):
    async def steps(scenario):
        os.write(mouth, b"here")
        if not select.select([ear], [], [], 20)[0]:
            raise LabError("nobody beside me")
        await healthy(scenario)
    return steps

tallies = tried(setting(waiting(here[0], there[1])), setting(waiting(there[0], here[1]), "be-liberal"))
print([(tally.runs, tally.failure) for tally in tallies])
"""
    assert script(text).stdout == "[(1, ''), (1, '')]\n"


def test_a_slow_case_has_the_machine_for_itself(tmp_path):
    log = tmp_path / "log"
    text = f"""
log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def noted(name):
    async def steps(scenario):
        os.write(log, f"{{name}} begins\\n".encode())
        await healthy(scenario)
        os.write(log, f"{{name}} ends\\n".encode())
    return steps

names = [f"quick-{{number}}" for number in range(6)]
fast = [setting(noted(name), name=name) for name in names]
tried(*fast[:3], setting(noted("slow"), name="slow", slow=True), *fast[3:])
"""
    script(text)
    lines = log.read_text().splitlines()
    assert len(lines) == 14
    assert lines[6:8] == ["slow begins", "slow ends"]


def test_what_goes_wrong_in_a_worker_is_told_as_ever():
    text = """
async def lacking(scenario):
    raise MissingError("no such module", "modprobe it")

async def failing(scenario):
    await scenario.establish()
    raise LabError("waited in vain")

async def wrong(scenario):
    warn("something to know")
    [_one, _two] = [scenario]

several = [(lacking, "none"), (failing, "drop-forward"), (wrong, "be-liberal"), (healthy, "be-liberal-with-drop")]
for tally in tried(*(setting(steps, fix) for steps, fix in several)):
    print(tally.runs, tally.failure, tally.missing, tally.sample is not None)
"""
    done = script(text)
    assert done.stdout.splitlines() == [
        "0  no such module: modprobe it False",
        "0 waited in vain  True",
        "0 a fault of the lab's own: ValueError: not enough values to unpack (expected 2, got 1)  True",
        "1   True",
    ]
    assert done.stderr.index("something to know") < done.stderr.index("in wrong")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("raise MachineError('no room left', 'tidy up')", "MachineError no room left (tidy up)"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            f"WorkerError a worker ended by SIGKILL while it ran bad with be-liberal ({ONE_PROCESS})",
        ),
    ],
)
def test_what_ends_a_batch_ends_it_from_a_worker_too(wrong, words):
    text = f"""
async def bad(scenario):
    {wrong}

try:
    others = [setting(healthy, name=str(number)) for number in range(9)]
    tried(setting(healthy), setting(bad, "be-liberal", name="bad"), *others)
except LabError as error:
    print(type(error).__name__, error)
"""
    assert script(text).stdout == f"{words}\n"


@contextmanager
def batch_under_way():
    """A batch of hours in a session of its own, in two workers, and what it says first."""
    command = [sys.executable, "-m", "lab", "run", "in-window", "--fix", "none", "--repeat", "100000", "-j", "2"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # what is printed is seen at once so as well
    ) as process:
        try:
            yield process, process.stderr.readline()
        finally:
            process.kill()


def test_ctrl_c_and_an_estimate_of_many_rounds():
    """Where standard error is no terminal it is told how long many rounds will take; and Ctrl-C leaves no process."""
    with batch_under_way() as (process, line):
        assert line.startswith("lab: 100000 trials, about ")
        assert len(workers_of(process.pid)) == 2
        process.send_signal(signal.SIGINT)  # to it alone, as `kill` does
        assert process.wait(30) == 130
        assert process.stderr.read() == ""
        assert of_session(process.pid) == {}


def test_workers_die_with_the_command():
    with batch_under_way() as (process, _line):
        ends = [os.pidfd_open(worker) for worker in workers_of(process.pid)]
        process.kill()
        for end in ends:
            assert select.select([end], [], [], 30)[0]
            os.close(end)
    assert len(ends) == 2


def workers_of(parent):
    """The processes that it has forked and that run on as it does: they have its command line."""
    command = Path(f"/proc/{parent}/cmdline").read_bytes()
    return [
        pid
        for pid, parent_of in of_session(parent).items()
        if parent_of == parent and Path(f"/proc/{pid}/cmdline").read_bytes() == command
    ]


def of_session(leader):
    """The processes of a session that live, and their parents."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _group, session = (place / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found[int(place.name)] = int(parent)
    return found


@pytest.mark.parametrize(
    "error",
    [
        InputError("wrong", source="a.yaml", line=3, cure="mend it"),
        UnknownNameError("case", "nothing", ["something"]),
        MissingError("nft", "apt-get install nftables"),
        MachineError("full", "empty it"),
        LabError("in vain"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_whole_from_another_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
