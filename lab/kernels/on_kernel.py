# SPDX-License-Identifier: MIT
"""The same trials on one kernel: this machine's own, or one that is booted for them."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import LabError, MissingError
from lab.results.matrix import Column, version
from lab.results.result import Report
from lab.results.saved import from_json

if TYPE_CHECKING:
    from lab.kernels import GuestRun, Image, Kernel

#: This machine's own kernel, which nobody has to boot.
RUNNING: Final = "running"

_REPORT: Final = "report.json"
_CONSOLE_LINES: Final = 60  # so that a panic's first is among them
# Seconds, where nobody said how long: an emulated guest on a machine whose processors have twenty others to serve took
# 400 to boot and to start Python, and up to 7 a trial.
_TO_BEGIN: Final = 1800
_FOR_EACH: Final = 10
# What a console prints beside text: escape sequences (ECMA-48, 5.4) and other control characters.
_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Trials:
    """What is to be tried on each kernel.

    :param cases: their names, in the order of the table.
    :param options: of ``lab run``.
    :param limit: how long a guest may take for all of it, in seconds; None for as long as so many trials may need.
    :param memory: of a guest, in MiB.
    :param per_case: how many trials each case has, by its fixes and repetitions.
    """

    cases: tuple[str, ...]
    options: tuple[str, ...]
    limit: float | None
    memory: int
    per_case: int = 1

    @property
    def seconds(self) -> float:
        """How long a guest may take for all of it."""
        return self.limit or _TO_BEGIN + _FOR_EACH * len(self.cases) * self.per_case

    @property
    def arguments(self) -> tuple[str, ...]:
        """What ``lab run`` is given."""
        return (*self.cases, *self.options)

    def shares(self, count: int) -> list[Trials]:
        """Return the trials in so many shares, or in as many as there are cases, of much the same length."""
        count = min(count, len(self.cases))
        return [replace(self, cases=self.cases[first::count]) for first in range(count)]


async def in_guest(kernel: Kernel, image: Image, trials: Trials) -> Column:
    """Boot a kernel and run the trials there. Whatever goes wrong with the guest is in the column.

    :raises MissingError: no guest can be started here at all.
    """
    from lab.kernels import run_in_guest

    command = (
        "sh",
        "-c",
        f'exec lab run --no-timeline --packets --json "$LAB_RESULTS/{_REPORT}" "$@"',
        "lab",
        *trials.arguments,
    )
    try:
        run = await run_in_guest(kernel, command, image=image, limit=trials.seconds, memory=trials.memory)
    except MissingError:
        raise
    except LabError as error:
        return failed(kernel, error)
    return column(kernel.name, kernel.release, kernel.version, run)


def failed(kernel: Kernel, error: LabError) -> Column:
    """Return the column of a kernel that no guest came to run."""
    return Column(kernel.name, kernel.release, kernel.version, failure=str(error))


async def here(trials: Trials) -> Column:
    """Run the trials on this machine's own kernel, by the same command."""
    from lab.kernels import GuestRun
    from lab.kernels.watch import out_of_time
    from lab.netns.running import dying_with_us

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lab-") as results:
        command = [sys.executable, "-m", "lab", "run", "--no-timeline", "--packets", "--json", f"{results}/{_REPORT}"]
        process = await asyncio.create_subprocess_exec(
            *dying_with_us([*command, *trials.arguments]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        failure, output = "", b""
        try:
            async with asyncio.timeout(trials.seconds):
                output, _none = await process.communicate()
        except TimeoutError:
            failure = out_of_time(trials.seconds)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        files = {path.name: path.read_bytes() for path in Path(results).iterdir()}
    seconds = time.monotonic() - start
    run = GuestRun(process.returncode, files, output.decode(errors="replace"), "", failure, seconds)
    release = os.uname().release
    return column(RUNNING, release, version(release), run)


def column(kernel: str, release: str, number: str, run: GuestRun) -> Column:
    """Return what a run on a kernel gave: its report, or why there is none."""
    if run.failure:
        failure = run.with_cure("--limit")
        return Column(kernel, release, number, None, failure, _last_lines(run.console or run.output), run.seconds)
    try:
        report = from_json(run.files[_REPORT])
        if not isinstance(report, Report):
            raise TypeError("a matrix")
    except (KeyError, ValueError, TypeError):
        words = _last_lines(run.output)
        failure = words[-1].removeprefix("lab: ") if words else f"the command ended with exit code {run.exit_code}"
        return Column(kernel, release, number, None, failure, _last_lines(run.output), run.seconds)
    return Column(kernel, release, number, report, seconds=run.seconds)


def _last_lines(text: str) -> tuple[str, ...]:
    lines = (_CONTROL.sub("", line).rstrip() for line in text.splitlines())
    return tuple([line for line in lines if line][-_CONSOLE_LINES:])
