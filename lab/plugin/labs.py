# SPDX-License-Identifier: MIT
"""The labs of a test: built for it, ended with it, and shown or kept where it fails."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final

import pytest

from lab.errors import LabError
from lab.plugin.user_namespace import ENTERED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fixes import Fix
    from lab.plugin.running_lab import RunningLab
    from lab.topology.model import Topology
    from lab.vocabulary import Family

#: Of an item: whether its test failed.
FAILED: Final = pytest.StashKey[bool]()

_LABS: Final = pytest.StashKey["list[RunningLab]"]()  # of an item: the labs that its evidence is in
_KEPT: Final = pytest.StashKey["list[tuple[str, RunningLab]]"]()  # of the session's config


def build(item: pytest.Item, topology: Topology, family: Family | None, fix: Fix, service: str | None) -> RunningLab:
    """Build a lab for a test."""
    from lab.plugin.running_lab import RunningLab

    built = RunningLab(topology, family, fix, service)
    item.stash.setdefault(_LABS, []).append(built)
    return built


def end(item: pytest.Item, lab: RunningLab) -> None:
    """End a test's lab, or keep it for the end of the run."""
    item.stash[_LABS].remove(lab)
    if item.config.getoption("lab_keep") and item.stash.get(FAILED, False):
        item.config.stash.setdefault(_KEPT, []).append((item.nodeid, lab))
    else:
        lab.close()


def evidence(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Return the sections of a failed test's report: hosts, rules and timeline of its labs."""
    for lab in item.stash.get(_LABS, []):
        yield "lab: hosts", lab.describe()
        try:
            yield "lab: rules", lab.rules()
        except LabError as error:
            yield "lab: rules", str(error)
        if lab.timeline is not None:
            from lab.report.timeline import timeline_text

            yield "lab: timeline", timeline_text(lab.timeline)


def open_shells(item: pytest.Item | pytest.Collector, failure: str) -> None:
    """Open a shell in each lab of a test that failed."""
    for lab in item.stash.get(_LABS, []):
        with _standard_streams(item.config):
            print(f"\n{item.nodeid}\n{failure}")
            lab.shell()


def end_kept(config: pytest.Config) -> None:
    """Show the ways into the labs that were kept, and end them when the user has seen enough."""
    kept = config.stash.get(_KEPT, [])
    if not kept:
        return
    with _standard_streams(config), contextlib.suppress(KeyboardInterrupt):
        for test, lab in kept:
            print(f"\nthe lab of {test} stands; enter a host by")
            print("\n".join(lab.ways_in(from_outside=config.stash.get(ENTERED, False))))
        print("\npress Enter to end", "it" if len(kept) == 1 else "them", flush=True)
        sys.stdin.readline()
    for _test, lab in kept:
        lab.close()


@contextlib.contextmanager
def _standard_streams(config: pytest.Config) -> Iterator[None]:
    """Return standard input and output to the user, as pytest's own debugger does."""
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.suspend(in_=True)
    try:
        yield
    finally:
        capture.resume()
