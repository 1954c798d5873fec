# SPDX-License-Identifier: MIT
"""The marks: what a test builds and what it needs. One whose need is missing is skipped."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab.errors import MachineError, MissingError, misspelt
from lab.plugin.options import KEYS, setting_keys
from lab.plugin.user_namespace import enter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

DESCRIPTIONS: Final = {
    "lab_topology": "lab_topology(reference, *, proxy_mode, proxy_version, backend, family, fix, service,"
    " kube_proxy_config, kube_proxy, ...): what `lab_running` and `lab_trial` build. The reference is a shipped"
    " topology's name, a file beside the test, YAML text or a Topology; without one, a trial's case runs in its own."
    " The settings of kube-proxy are named as its flags, with underscores.",
    "lab_kernel": "lab_kernel: the test makes namespaces. Tests that use `lab_running` or `lab_trial` have it by"
    " themselves.",
    "lab_kernel_feature": "lab_kernel_feature(name, ...): the test needs these modules or CONFIG_ options.",
    "lab_needs_tool": "lab_needs_tool(name, ...): the test needs these programs.",
    "lab_needs_root": "lab_needs_root: the test needs root of the machine; root of a user namespace will not do.",
}

#: The fixture that all of the plugin's fixtures use.
NAMESPACE_FIXTURE: Final = "_lab_namespace"
SKIPPED: Final = "not run by the lab: "  # marks our skips among all others; survives xdist's serialising


def check_marks(item: pytest.Item) -> None:
    """Check the arguments of a test's marks, and mark it where it uses the fixtures.

    :raises UsageError: an argument cannot be.
    """
    # Other projects may have a mark `lab_topology` of their own: only tests with the plugin's fixtures need this one.
    if NAMESPACE_FIXTURE in getattr(item, "fixturenames", ()):
        item.add_marker("lab_kernel")
        for mark in item.iter_markers("lab_topology"):
            _check(item, mark, len(mark.args) <= 1, (*KEYS, *setting_keys()))
    for mark in item.iter_markers("lab_needs_tool"):
        _check(item, mark, bool(mark.args))
    for mark in item.iter_markers("lab_kernel_feature"):
        from lab.netns import features

        known = (name in features.MODULES or name.startswith("CONFIG_") for name in mark.args)
        _check(item, mark, bool(mark.args) and all(known))


def _check(item: pytest.Item, mark: pytest.Mark, good: bool, keys: Collection[str] = ()) -> None:
    """Refuse a mark whose positional arguments are not good, or that has keywords besides ``keys``."""
    unknown = [key for key in mark.kwargs if key not in keys]
    if good and not unknown:
        return
    if good and keys:
        raise pytest.UsageError(
            f"{item.nodeid}: {mark.name}({unknown[0]}={mark.kwargs[unknown[0]]!r}): there is no word"
            f" {unknown[0]!r} ({_meant(unknown[0], keys)})"
        )
    given = [repr(value) for value in mark.args]
    given += [f"{key}={value!r}" for key, value in mark.kwargs.items()]
    modules = ""
    if mark.name == "lab_kernel_feature":
        from lab.netns import features

        modules = f" Modules: {', '.join(features.MODULES)}."
    raise pytest.UsageError(
        f"{item.nodeid}: {mark.name}({', '.join(given)}) cannot be. {DESCRIPTIONS[mark.name]}{modules}"
    )


def _meant(key: str, keys: Collection[str]) -> str:
    """Return which word was probably meant, and which there are."""
    known = f"known: {', '.join(keys)}"
    likely = misspelt(key, keys)
    return f"{likely} {known}" if likely else known


def provide_needs(item: pytest.Item) -> None:
    """Skip a test whose tool, kernel feature or right is missing; enter a user namespace if it needs one."""
    with missing_is_skipped():
        if item.get_closest_marker("lab_needs_root") and not _is_root():
            raise MissingError("needs root of the machine", "run it with sudo")
        for mark in item.iter_markers("lab_needs_tool"):
            from lab.netns.program import find

            for name in mark.args:
                find(name)
        for mark in item.iter_markers("lab_kernel_feature"):
            from lab.netns import features

            for name in mark.args:
                features.require(name)
        if item.get_closest_marker("lab_kernel"):
            enter()


@contextlib.contextmanager
def missing_is_skipped() -> Iterator[None]:
    """Skip the test where something is missing, and fail it in a line where the machine ran out of something."""
    try:
        yield
    except MissingError as error:
        pytest.skip(f"{SKIPPED}{error}")
    except (MachineError, OSError) as error:
        known = MachineError.of(error) if isinstance(error, OSError) else error
        if known is None:
            raise
        pytest.fail(str(known), pytrace=False)  # nothing in the test or the lab led there


def tests_not_run(reports: Collection[pytest.TestReport]) -> dict[str, list[str]]:
    """Return the skipped tests that the plugin skipped, by what is missing."""
    tests: dict[str, list[str]] = {}
    for report in reports:
        assert isinstance(report.longrepr, tuple)
        _path, _line, reason = report.longrepr
        _before, ours, missing = reason.partition(SKIPPED)
        if ours:
            tests.setdefault(missing, []).append(report.nodeid)
    return tests


def _is_root() -> bool:
    # user_namespaces(7): only the initial user namespace maps every number to itself.
    mapped = Path("/proc/self/uid_map").read_text().split()
    return os.geteuid() == 0 and mapped == ["0", "0", "4294967295"]
