"""Real results of this kernel; where a second kernel is needed, the same ones with what another would have done."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys

import pytest

from lab.evidence.judgement import Judgement
from lab.results.matrix import Column, merge
from lab.results.result import Expectation, Tally
from lab.results.saved import from_json
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("matrix") / "report.json"
    subprocess.run(
        [sys.executable, "-m", "lab", "run", "--no-timeline", "--packets", "--json", str(path)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return from_json(path.read_text())


def tally(report, case, fix):
    return next(one for one in report.tallies if (one.trial.case, one.trial.fix) == (case, fix))


def with_tally(report, changed):
    tallies = (changed if one.trial == changed.trial else one for one in report.tallies)
    return dataclasses.replace(report, tallies=tuple(tallies))


def with_verdict(report, case, fix, *, expected=None, **verdict):
    """Return the report with another verdict of one trial, which is as expected where an expectation is given."""
    one = tally(report, case, fix)
    result = dataclasses.replace(one.sample, verdict=dataclasses.replace(one.sample.verdict, **verdict))
    if expected is not None:
        result = dataclasses.replace(result, expected=expected)
    return with_tally(report, Tally(one.trial).and_then(result))


@pytest.fixture(scope="session")
def strict_report(report):
    """What a kernel gives that ignores nothing: upstream's packet is INVALID there and kills."""
    old = dataclasses.replace(report, kernel="5.10.0-36-cloud-amd64", behaviours={Family.IPV4: Behaviour.STRICT})
    for fix, outcome in (("none", Outcome.RESET), ("drop-forward", Outcome.DROPPED)):
        expected = Expectation(Judgement.INVALID, outcome)
        old = with_verdict(
            old, "upstream-regression", fix, judgement=Judgement.INVALID, outcome=outcome, expected=expected
        )
    return old


@pytest.fixture(scope="session")
def lenient_report(report):
    """The results of this kernel where it ignores late packets; else there is nothing to lay them beside."""
    if report.behaviours[Family.IPV4] is not Behaviour.IGNORES_LATE:
        pytest.skip("this kernel ignores nothing")
    return dataclasses.replace(report, kernel="6.1.0-41-cloud-amd64")


@pytest.fixture(scope="session")
def matrix(strict_report, lenient_report):
    newest = dataclasses.replace(lenient_report, kernel="7.3.1-cloud-amd64")
    return merge(
        "0.1.0",
        [
            Column("newest", newest.kernel, "7.3.1", newest, seconds=12.5),
            Column("6.1", lenient_report.kernel, "6.1.192", lenient_report, seconds=21.25),
            Column("5.10", strict_report.kernel, "5.10.247", strict_report, seconds=30.0),
        ],
    )


@pytest.fixture(scope="session")
def broken_matrix(matrix):
    """The same with all that can go wrong: a guest that panicked, trials that went wrong or were not run."""
    old, middle, new = matrix.columns
    console = ("[   12.3] Kernel panic - not syncing: <VFS> & co", "[   12.4] \x1b[31m| `end`\x00")
    panicked = Column("6.12", "6.12.1-cloud-amd64", "6.12.1", None, "panicked: not syncing", console, 12.5)
    wrong = with_verdict(
        middle.report, "in-window", "none", outcome=Outcome.STALLED, disagreements=("sockets and captures | disagree",)
    )
    failed = Tally(tally(wrong, "without-nat", "none").trial, failure="iptables_nat: <no> such table")
    missing = Tally(tally(wrong, "without-nat", "drop-forward").trial, missing="no nfacct: boot one with CONFIG_X=y")
    wrong = with_tally(with_tally(wrong, failed), missing)
    return merge("0.1.0", [old, dataclasses.replace(middle, report=wrong), panicked, new])


class RunningCluster:
    """A Dask scheduler and two workers, each a process with a cache and a place for temporary files of its own.

    What they say comes by pipes, which have room for more than they ever say.

    :param environment: of the workers, beside this process's own.
    """

    def __init__(self, directory, environment):
        self.directory = directory
        self.environment = environment
        self.workers = []
        self._note = directory / "scheduler.json"
        self.scheduler = self._start("scheduler", "scheduler", "--port", "0")

    @property
    def address(self):
        return json.loads(self._note.read_text())["address"]

    def started(self):
        """Wait until there is a scheduler."""
        wait_for_word(self.scheduler, "Scheduler at:")

    def add_worker(self, name, *options):
        """Start one; without options it has room for one guest at a time, and nobody who would start it again."""
        worker = self._start("worker", name, *(options or ("--no-nanny", "--nthreads", "1")))
        self.workers.append(worker)
        wait_for_word(worker, "Registered to:")
        return worker

    def end(self):
        for process in (*reversed(self.workers), self.scheduler):
            process.kill()
            process.wait()
            process.stderr.close()

    def _start(self, role, name, *arguments):
        place = self.directory / name
        place.mkdir()
        return subprocess.Popen(
            [
                *(sys.executable, "-m", f"distributed.cli.dask_{role}", "--scheduler-file", str(self._note)),
                *("--no-dashboard", "--host", "127.0.0.1", *arguments),
            ],
            env={**os.environ, "TMPDIR": str(place), "LAB_KERNELS_CACHE": str(place / "cache"), **self.environment},
            cwd=place,
            stderr=subprocess.PIPE,
            text=True,
        )


def wait_for_word(process, word):
    """Read what a process says until it says that."""
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the process ended before it said {word!r}")


@pytest.fixture
def wait_for():
    return wait_for_word


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Gives clusters on 127.0.0.1, whose workers have what is given in their environment."""
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'kube-proxy-lab[cluster]'")
    with contextlib.ExitStack() as stack:

        def start(**environment):
            running = RunningCluster(tmp_path_factory.mktemp("cluster"), environment)
            stack.callback(running.end)
            running.started()
            for name in ("first", "second"):
                running.add_worker(name)
            return running

        yield start


@pytest.fixture(scope="module")
def cluster(clusters):
    """One cluster. Whoever ends a worker comes last in the module."""
    return clusters()
