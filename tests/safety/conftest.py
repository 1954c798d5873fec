"""The lab's command as a process of its own, the machine it runs on, and a look at both."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lab
from tests.support import cover
from tests.support.command import python

HERE = Path(__file__).parent
CHECKOUT = Path(lab.__file__).parents[1]
BOUND = 60  # seconds; a generous end to waits that an event ends


@pytest.fixture(scope="session")
def at_full_length():
    """Whether the long measurements are wanted: 50 kills, 1,000 repetitions."""
    return cover.at_full_length()


@pytest.fixture
def environment(tmp_path):
    """An environment in which the command finds the checkout, and leaves nothing behind by Python's own doing."""
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir(exist_ok=True)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
    }


@pytest.fixture
def start(environment, tmp_path):
    """Starts a program in a session of its own, as a terminal would; whatever is left of it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*command, **more):
            options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
            process = subprocess.Popen(
                command, env=environment, cwd=tmp_path, text=True, start_new_session=True, **options
            )
            stack.enter_context(process)
            stack.callback(kill_group, process)
            return process

        yield start


@pytest.fixture
def start_lab(start):
    """Starts the command ``lab``, as it is in this checkout."""
    return lambda *arguments, prefix=(), **more: start(*prefix, sys.executable, "-P", "-m", "lab", *arguments, **more)


@pytest.fixture
def run_lab(start_lab, environment, tmp_path):
    """Runs the command ``lab`` to its end: exit code, output and errors.

    It is a Python of its own only where something is to be seen of that.

    :param prefix: what becomes the command.
    """

    def run(*arguments, given=None, stdout=None, prefix=(), **variables):
        if not prefix:
            own = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
            done = python(
                "-m", "lab", *arguments, given=given or "", output=stdout, directory=tmp_path, **{**own, **variables}
            )
            return done.returncode, done.stdout, done.stderr
        process = start_lab(*arguments, prefix=prefix, **({"stdin": subprocess.PIPE} if given is not None else {}))
        output, errors = process.communicate(given)
        return process.returncode, output, errors

    return run


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def wait_until():
    """Waits until something is true, asked again and again; returns how long it took, in seconds."""

    def wait(condition, what, bound=BOUND):
        begun = time.monotonic()
        while not condition():
            taken = time.monotonic() - begun
            assert taken < bound, f"waited {taken:.1f} s for {what}"
            time.sleep(0.001)
        return time.monotonic() - begun

    return wait


@pytest.fixture
def stands(wait_until):
    """Waits until a process holds the namespaces of a lab with three hosts."""

    def held(process):
        targets = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    targets.append(os.readlink(entry.path))
        return sum(target.startswith("net:") for target in targets)

    def wait(process):
        wait_until(lambda: held(process) >= 3 or process.poll() is not None, "a lab to stand")
        assert process.poll() is None, process.stderr.read()

    return wait


@pytest.fixture
def snapshot(environment):
    """Takes down what a machine is set to; see snapshot.py."""

    def take(machine):
        with machine():
            taken = subprocess.run(
                [sys.executable, HERE / "snapshot.py"], env=environment, check=True, capture_output=True, text=True
            )
        return json.loads(taken.stdout)

    return take
