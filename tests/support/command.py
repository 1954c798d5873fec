"""The project's commands as processes of their own."""

from __future__ import annotations

import array
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Final

import pytest

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 120.0  # seconds
_SPACES: Final = ("net", "user", "mnt", "pid")
# These Python reads when it starts, so one that has started already cannot heed them.
_AT_START: Final = ("PYTHON", "MALLOC_", "LD_")
_NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"  # but for this one


def lab(
    *arguments: str | Path, given: str = "", directory: Path | None = None, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the command ``lab`` and return what it prints and its exit code; 120 columns wide.

    :param given: its standard input.
    :param environment: variables besides the caller's; None takes one away.
    """
    wide = {"COLUMNS": "120", **environment}
    return python("-m", "lab", *arguments, given=given, output=None, directory=directory, **wide)


def run_pytest(directory: Path, *arguments: str | Path) -> pytest.RunResult:
    """Run pytest in a directory of its own, and return what pytester's own way to run it returns."""
    begun = time.monotonic()
    done = python("-m", "pytest", "-pno:cacheprovider", *arguments, directory=directory)
    print(done.stdout)
    print(done.stderr, file=sys.stderr)
    with suppress(ValueError):
        done.returncode = pytest.ExitCode(done.returncode)
    return pytest.RunResult(
        done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), time.monotonic() - begun
    )


def python(
    *arguments: str | Path,
    given: str = "",
    output: IO[str] | None = None,
    directory: Path | None = None,
    **environment: str | None,
) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with ``-m MODULE``, ``-c CODE`` or a script; return what it prints and its exit code.

    :param output: where its standard output goes instead.
    """
    command = [str(argument) for argument in arguments]
    wanted = {**os.environ, **environment}
    variables = {name: value for name, value in wanted.items() if value is not None}
    place = directory or Path.cwd()
    warm = _warm()
    if warm.fits(variables):
        return warm.run(command, given, output, place, variables)
    done = subprocess.run(
        [sys.executable, *command],
        input=given,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=place,
        env=variables,
    )
    done.stdout = done.stdout or ""  # None where it went elsewhere, which the warm process tells as nothing printed
    return done


def shown_on_terminal(*arguments: str | Path, both: bool = False, **environment: str) -> bytes:
    """Run the command ``lab`` with a terminal for its standard error, and return what that shows.

    :param both: whether its standard output goes there as well.
    """
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "lab", *map(str, arguments)],
        stdout=its if both else subprocess.DEVNULL,
        stderr=its,
        env={**os.environ, **environment},
    ):
        os.close(its)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while heard := os.read(ours, 65536):
                shown += heard
    os.close(ours)
    return shown


class _Warm:
    """A process of :mod:`tests.support.warm`, which serves one command after the other."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(Path(__file__).with_name("warm.py"))
        self._variables = dict(os.environ)
        # Its own session: what a terminal or a test's signal does to the caller is not for it.
        self._process = subprocess.Popen(
            [sys.executable, script, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._socket.settimeout(PATIENCE)
        assert self._socket.recv(16) == b"ready"

    def fits(self, variables: Mapping[str, str]) -> bool:
        """Report whether a command started here and now would be where this process is, and as Python as it."""
        names = {name for name in (*variables, *self._variables) if name.startswith(_AT_START)} - {_NO_BYTECODE}
        return all(variables.get(name) == self._variables.get(name) for name in names) and all(
            os.readlink(f"/proc/thread-self/ns/{space}") == os.readlink(f"/proc/{self._process.pid}/ns/{space}")
            for space in _SPACES
        )

    def run(
        self, command: list[str], given: str, output: IO[str] | None, directory: Path, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        with (
            tempfile.TemporaryFile("w+") as stdin,
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
        ):
            stdin.write(given)
            stdin.seek(0)
            asked = {"command": command, "directory": str(directory), "environment": dict(variables)}
            streams = array.array("i", [stream.fileno() for stream in (stdin, output or stdout, stderr)])
            self._socket.sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
            child = int(self._socket.recv(16))
            try:
                code = int(self._socket.recv(16))
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                self._socket.recv(16)
                raise subprocess.TimeoutExpired(command, PATIENCE, _text(stdout), _text(stderr)) from None
            return subprocess.CompletedProcess(command, code, _text(stdout), _text(stderr))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


@cache
def _warm() -> _Warm:
    warm = _Warm()
    atexit.register(warm.close)
    return warm
