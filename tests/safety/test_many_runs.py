"""Every verdict is right, however busy the machine is and however many labs stand on it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess

import pytest

pytestmark = pytest.mark.lab_kernel


@contextlib.contextmanager
def busy_core():
    """Keep one processor busy, the last one that we may use."""
    core = str(max(os.sched_getaffinity(0)))
    with subprocess.Popen(["taskset", "-c", core, "sh", "-c", "while :; do :; done"]) as idler:
        try:
            yield
        finally:
            idler.kill()


def verdicts(output):
    """Count by fix how many runs there were, and how many of them were as expected."""
    return {tally["trial"]["fix"]: (tally["runs"], tally["as_expected"]) for tally in json.loads(output)["tallies"]}


def test_every_verdict_is_right_beside_a_busy_core(run_lab, at_full_length):
    count = 1000 if at_full_length else 10
    with busy_core():
        code, output, errors = run_lab("run", "beyond-window", "--repeat", str(count), "--json", "-")
    assert verdicts(output) == dict.fromkeys(("none", "drop-forward", "be-liberal"), (count, count))
    assert code == 0, errors


def test_many_side_by_side(start_lab, at_full_length):
    processes = [start_lab("run", "--json", "-") for _ in range(8 if at_full_length else 3)]
    outputs = [process.communicate() for process in processes]
    for process, (output, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors + output
        tallies = json.loads(output)["tallies"]
        assert [(tally["runs"], tally["as_expected"]) for tally in tallies] == [(1, 1)] * 12
