# SPDX-License-Identifier: MIT
"""The labs of a test: built for it, ended with it, and shown or kept where it fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fixes import Fix
    from lab.plugin.running_lab import RunningLab
    from lab.topology.model import Topology
    from lab.vocabulary import Family

#: The section of a failure's report that says where its lab stays.
KEPT: Final = "lab: kept"

_EVERY_RULE: Final = 2  # -vv
_LABS: Final = pytest.StashKey["list[RunningLab]"]()  # of an item: the labs that its evidence is in


def build(
    item: pytest.Item, topology: Topology, family: Family | None, fix: Fix, service: str | None, *, served: bool = False
) -> RunningLab:
    """Build a lab for a test.

    :param served: with servers at its endpoints, which a trial brings along.
    """
    from lab.plugin.running_lab import RunningLab

    built = RunningLab(topology, family, fix, service, served=served)
    item.stash.setdefault(_LABS, []).append(built)
    return built


def end(item: pytest.Item, lab: RunningLab) -> None:
    """End a test's lab."""
    item.stash[_LABS].remove(lab)
    lab.close()


def evidence(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Return the sections of a failed test's report: timeline, hosts and rules of its labs, and where they stay."""
    for lab in item.stash.get(_LABS, []):
        if lab.timeline is not None:
            from lab.report.timeline import timeline_text

            yield "lab: timeline", timeline_text(lab.timeline)
        yield "lab: hosts", lab.describe()
        try:
            yield "lab: rules", lab.ruleset(every=item.config.get_verbosity() >= _EVERY_RULE)
        except LabError as error:
            yield "lab: rules", str(error)
        if item.config.getoption("lab_keep"):
            yield KEPT, _keep(lab, item.name)


def _keep(lab: RunningLab, test: str) -> str:
    """Have a lab stay, and return how to come there and how to end it."""
    try:
        name, hosts = lab.keep_standing(test)
    except (LabError, OSError) as error:
        return f"it does not stay: {error}"
    return f"{name}: `lab shell --lab {name} {'|'.join(hosts)}`, and in the end `lab down {name}`"


def open_shells(item: pytest.Item | pytest.Collector, failure: str) -> None:
    """Open a shell in each lab of a test that failed."""
    for lab in item.stash.get(_LABS, []):
        with _standard_streams(item.config):
            print(f"\n{item.nodeid}\n{failure}")
            lab.shell()


@contextlib.contextmanager
def _standard_streams(config: pytest.Config) -> Iterator[None]:
    """Return standard input and output to the user, as pytest's own debugger does."""
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.suspend(in_=True)
    try:
        yield
    finally:
        capture.resume()
