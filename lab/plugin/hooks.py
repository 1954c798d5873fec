# SPDX-License-Identifier: MIT
"""pytest's door to the lab: fixtures, marks and options for tests that run on the kernel in front of you.

A test of one's own, in any project that has this distribution installed::

    def test_reset(lab_trial):
        assert lab_trial("beyond-window").verdict.outcome == "reset"

    @pytest.mark.lab_topology("kube-proxy", proxy_mode="nftables", family="ipv6")
    def test_rules(lab_running):
        assert "kube-proxy" in lab_running.run("node", "nft", "list", "tables")

``lab_running`` is a fresh running lab; ``lab_trial`` tries cases, each in a lab of its own. The mark ``lab_topology``
says what to build, for a test, a class or a module. What it leaves open is as the ``--lab-...`` options say, then
as the topology itself does.

**Without root**, pytest's own process becomes root of a user namespace when the first test that needs a lab
is set up, and not before: it leaves the machine's network for good, and has a loopback and nothing else from
then on, in every later test. A process that runs threads cannot enter (unshare(2), EINVAL). xdist's workers
always run some, so xdist's controller enters before it makes them where the project's ``required_plugins`` (a
setting of pytest's) names kube-proxy-lab. ``unshare -Urn pytest`` decides it from outside.

A test whose need is missing is skipped, and the last lines of the run say which and why.

pytest loads this module in every run of everybody who has the distribution: importing it costs next to
nothing, and whatever it adds to pytest has a name that begins with ``lab_`` or ``--lab-``.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from lab.errors import InputError, MissingError
from lab.plugin import labs, marks, options
from lab.plugin.fixtures import lab_running, lab_trial, namespace_fixture
from lab.plugin.user_namespace import enter

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["lab_running", "lab_trial", "namespace_fixture"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--lab-...`` options."""
    options.add_options(parser)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0 where an option wants one process: ``-n auto`` gives way, as to pytest's own ``--pdb``."""
    wanted = any(config.getoption(option) for option in ("lab_kernels", "lab_shell_on_failure"))
    return 0 if wanted else None


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, check the options, and enter the user namespace where xdist's workers cannot."""
    for description in marks.DESCRIPTIONS.values():
        config.addinivalue_line("markers", description)
    try:
        options.check_options(config)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    if config.getoption("lab_kernels"):
        _send_to_guests(config)
        return
    if config.getoption("lab_kernels_limit") is not None:
        raise pytest.UsageError("--lab-kernels-limit is for guests: give --lab-kernels too, or leave it out")
    if config.getoption("lab_keep"):
        _check_root()
    if config.getoption("dist", "no") == "no":
        return
    if config.getoption("lab_shell_on_failure"):
        raise pytest.UsageError("--lab-shell-on-failure wants one process: leave out -n")
    if _is_required(config):
        with contextlib.suppress(MissingError):  # the workers will say so for each test
            enter()


def _send_to_guests(config: pytest.Config) -> None:
    from lab.kernels.suite import Elsewhere

    here = (
        config.getoption("dist", "no") != "no",
        config.getoption("lab_keep"),
        config.getoption("lab_shell_on_failure"),
        config.getoption("lab_kube_proxy"),
    )
    if any(here):
        others = "-n, --lab-keep, --lab-shell-on-failure, --lab-kube-proxy"
        message = f"--lab-kernels runs the tests elsewhere: leave out {others}"
        raise pytest.UsageError(message)
    names = dict.fromkeys(name.strip() for name in config.getoption("lab_kernels").split(","))
    limit = config.getoption("lab_kernels_limit") or options.GUEST_LIMIT
    config.pluginmanager.register(Elsewhere(config, list(names), limit))


def _check_root() -> None:
    from lab.standing.keeper import require_root

    try:
        require_root()
    except MissingError as error:
        cure = "run pytest with sudo, or give --lab-shell-on-failure instead"
        raise pytest.UsageError(f"--lab-keep: {error.what}: {cure}") from None


def _is_required(config: pytest.Config) -> bool:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    required = (Requirement(line).name for line in config.getini("required_plugins"))
    return any(canonicalize_name(name) == "kube-proxy-lab" for name in required)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check the marks' arguments, and mark whatever uses the fixtures."""
    for item in items:
        marks.check_marks(item)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool, kernel feature or right is missing; enter a user namespace if it needs one."""
    marks.provide_needs(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the evidence into the report of a failure."""
    report = yield
    if report.failed and call.when != "teardown":
        report.sections += labs.evidence(item)
    return report


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, report: pytest.CollectReport | pytest.TestReport
) -> None:
    """Open a shell in the labs of a test that failed, if asked to."""
    if node.config.getoption("lab_shell_on_failure"):
        labs.open_shells(node, report.longreprtext)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report which labs stay, and which tests were not run for want of something."""
    kept = [
        (report.nodeid, text)
        for outcome in ("failed", "error")
        for report in terminalreporter.getreports(outcome)
        for title, text in report.sections
        if title == labs.KEPT
    ]
    if kept:
        terminalreporter.section("labs that stay (`lab status`)", bold=True)
        for test, text in kept:
            terminalreporter.line(f"{test}: {text}")
    by_reason = marks.tests_not_run(terminalreporter.getreports("skipped"))
    if by_reason:
        count = sum(len(tests) for tests in by_reason.values())
        tests_were = "test was" if count == 1 else "tests were"
        terminalreporter.section(f"{count} {tests_were} not run", yellow=True, bold=True)
        for reason, tests in by_reason.items():
            terminalreporter.line(reason, yellow=True)
            for test in tests:
                terminalreporter.line(f"    {test}")
