# SPDX-License-Identifier: MIT
"""``pytest --lab-kernels 5.10,6.1``: the same tests in a guest for each kernel, reported here as if they ran here.

pytest's plugin registers :class:`Elsewhere` for such a run. It collects nothing on the machine: every guest runs pytest
over a copy of the project with the arguments given here, and its reports are taken up one by one with the kernel's
name at the test's. So whatever reads reports (the terminal, ``--junitxml``, the exit code) needs to know nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from lab.errors import LabError
from lab.kernels.cache import Cache
from lab.kernels.find import resolve
from lab.kernels.guest import GuestRun, run_in_guest
from lab.kernels.image import Image, make_image
from lab.kernels.kernel import Kernel
from lab.kernels.reporting import FILE

_PLACE: Final = "/mnt/lab/project"
# What is the machine's own business: options that take a value.
_NOT_PASSED_ON: Final = ("--lab-kernels", "--lab-kernels-limit", "--junitxml", "--junit-xml", "--rootdir")


class Elsewhere:
    """pytest's hooks for a run in guests.

    :param names: the kernels.
    :param limit: seconds a guest.
    """

    def __init__(self, config: pytest.Config, names: Sequence[str], limit: float) -> None:
        self._config = config
        self._names = names
        self._limit = limit

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Leave it to the guests."""
        session.items = []
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run a guest for each kernel, as many at a time as there are processors, and take up what they report."""
        cache = Cache.default()
        try:
            kernels = [resolve(name, cache) for name in self._names]
            images = [make_image(kernel, cache, self._config.rootpath) for kernel in kernels]
            asyncio.run(self._run(session, list(zip(kernels, images, strict=True))))
        except LabError as error:
            raise pytest.UsageError(str(error)) from None
        return True

    async def _run(self, session: pytest.Session, guests: Sequence[tuple[Kernel, Image]]) -> None:
        free = asyncio.Semaphore(os.cpu_count() or 1)
        command = self._command()

        async def one(kernel: Kernel, image: Image) -> None:
            async with free:
                done = await run_in_guest(kernel, command, image=image, limit=self._limit)
            self._take_up(session, kernel, done)

        async with asyncio.TaskGroup() as group:
            for kernel, image in guests:
                group.create_task(one(kernel, image))

    def _command(self) -> list[str]:
        """Return the guest's command: pytest with what was given here, and paths as they are there."""
        invocation = self._config.invocation_params
        root = self._config.rootpath
        own = [word.replace(str(root), _PLACE) for word in passed_on([str(word) for word in invocation.args])]
        place = Path(_PLACE)
        if invocation.dir.is_relative_to(root):
            place /= invocation.dir.relative_to(root)
        pytest_there = ["pytest", "-p", "lab.kernels.reporting", "-p", "no:cacheprovider", *own]
        # By this variable pytest tells all of a failure, and hypothesis knows that time says nothing here.
        return ["sh", "-c", 'cd "$1" && shift && CI=true exec "$@"', "sh", str(place), *pytest_there]

    def _take_up(self, session: pytest.Session, kernel: Kernel, done: GuestRun) -> None:
        hook = self._config.hook
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"{kernel.name}: Linux {kernel.version} ({kernel.release}), {done.seconds:.0f} s")
        reports = [self._named(report, kernel.name) for report in self._reports(done)]
        session.testscollected += len({report.nodeid for report in reports if isinstance(report, pytest.TestReport)})
        for report in reports:
            if isinstance(report, pytest.CollectReport):
                hook.pytest_collectreport(report=report)
                continue
            if report.when == "setup":
                hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
        wrong = done.with_cure("--lab-kernels-limit") or _wrong_end(
            done.exit_code, any(report.failed for report in reports)
        )
        if wrong:
            hook.pytest_runtest_logreport(report=_report_of_guest(kernel, wrong, done))

    def _reports(self, done: GuestRun) -> Iterator[pytest.TestReport | pytest.CollectReport]:
        for line in done.files.get(FILE, b"").decode().splitlines():
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(line))
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # where and why a test was skipped; JSON has no tuples
            yield report

    @staticmethod
    def _named(report: pytest.TestReport | pytest.CollectReport, name: str) -> pytest.TestReport | pytest.CollectReport:
        report.nodeid += f"[{name}]"
        if isinstance(report, pytest.TestReport):
            file, line, domain = report.location
            report.location = (file, line, f"{domain}[{name}]")
        return report


def passed_on(arguments: Sequence[str]) -> list[str]:
    """Return pytest's arguments without what is not for the guests."""
    kept = []
    words = iter(arguments)
    for word in words:
        option, equals, _value = word.partition("=")
        if option not in _NOT_PASSED_ON:
            kept.append(word)
        elif not equals:
            next(words, None)
    return kept


def _wrong_end(exit_code: int | None, told: bool) -> str:
    """Return what is wrong with pytest's own end, where no report has it."""
    if exit_code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        return ""
    return (
        ""
        if told and exit_code in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
        else (f"pytest ended with exit code {exit_code}")
    )


def _report_of_guest(kernel: Kernel, wrong: str, done: GuestRun) -> pytest.TestReport:
    """Make an error of what happened to a guest, with the last it said."""
    name = f"guest[{kernel.name}]"
    last = "\n".join(done.output.splitlines()[-20:])
    return pytest.TestReport(
        nodeid=name,
        location=(name, None, name),
        keywords={},
        outcome="failed",
        longrepr=f"the guest with Linux {kernel.version}: {wrong}",
        when="setup",
        sections=[("the guest's output", last), ("the guest's console", done.console)],
    )
