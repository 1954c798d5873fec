"""A run that is ended from outside leaves nothing behind, and the next one works."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab_kernel

BAR = 1.0  # seconds until the last namespace and the last process are gone
SEED = 74839


@pytest.fixture
def kills(start, tmp_path, at_full_length):
    directory = tmp_path / "temporary"
    count = 50 if at_full_length else 2
    killer = os.path.join(os.path.dirname(__file__), "killer.py")
    process = start(
        *("unshare", "--user", "--map-root-user", "--net", "--mount"),
        *(sys.executable, "-P", killer, str(SEED), str(count), str(directory)),
    )
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    outcomes = [json.loads(line) for line in output.splitlines()]
    assert len(outcomes) == count
    return outcomes


def test_nothing_is_left_after_sigkill(kills):
    for name in ("processes_gone_after", "namespaces_gone_after"):
        times = sorted(kill[name] for kill in kills)
        print(f"{name}: median {times[len(times) // 2]:.3f} s, longest {times[-1]:.3f} s, of {len(times)} kills")
    # Without this, a lab that was not standing yet would prove nothing.
    assert sum(kill["held_namespaces"] for kill in kills) > len(kills) * 0.9
    assert [kill for kill in kills if kill["processes_gone_after"] > BAR] == []
    assert [kill for kill in kills if kill["namespaces_gone_after"] > BAR] == []
    assert [kill["files"] for kill in kills if kill["files"]] == []
    assert [kill["next_output"] for kill in kills if kill["next_run"] != 0] == []


@pytest.mark.parametrize("options", [("--json", "-"), ("--backend", "legacy")], ids=" ".join)
def test_ctrl_c(start_lab, stands, wait_until, options, at_full_length):
    chance = random.Random(SEED)
    for _ in range(3 if at_full_length else 1):
        process = start_lab("run", "beyond-window", "--repeat", "1000", *options)
        stands(process)
        with pytest.raises(subprocess.TimeoutExpired):  # the moment is the experiment
            process.wait(chance.uniform(0, 0.2))
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate()
        assert process.returncode == 130, output + errors
        assert output == ""
        assert len(errors.splitlines()) <= 1, errors
        wait_until(lambda group=process.pid: not exists(group), "the last process to go", BAR)


def exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
