# SPDX-License-Identifier: MIT
"""The catalogue's names, for `lab list` and for programs."""

from __future__ import annotations

from dataclasses import dataclass

from lab.cases import GROUPS
from lab.fixes import FIXES
from lab.report import reasons
from lab.topology.reader import load, shipped


@dataclass(frozen=True)
class ListedCase:
    """A case; ``group`` is what it is about, ``topology`` what it runs in where nobody asks for another."""

    name: str
    group: str
    title: str
    slow: bool
    topology: str


@dataclass(frozen=True)
class ListedFix:
    """A fix, in a line."""

    name: str
    summary: str


@dataclass(frozen=True)
class ListedTopology:
    """A topology that comes along, in a line."""

    name: str
    description: str


@dataclass(frozen=True)
class Catalogue:
    """All that has a name."""

    cases: tuple[ListedCase, ...]
    fixes: tuple[ListedFix, ...]
    topologies: tuple[ListedTopology, ...]
    reasons: tuple[reasons.Row, ...]


def catalogue() -> Catalogue:
    """Return the catalogue for a program."""
    return Catalogue(
        cases=tuple(
            ListedCase(case.name, title, case.title, case.slow, case.topology)
            for title, group in GROUPS.items()
            for case in group
        ),
        fixes=tuple(ListedFix(fix.name, fix.summary) for fix in FIXES.values()),
        topologies=tuple(ListedTopology(name, load(path).description) for name, path in shipped()),
        reasons=reasons.as_data(),
    )


def lines() -> list[str]:
    """Return it for a person: a title for each group, and a line for each name."""
    sections = {
        **{
            f"cases: {title}": {case.name: f"{case.title}{' (slow)' if case.slow else ''}" for case in cases}
            for title, cases in GROUPS.items()
        },
        "fixes": {fix.name: fix.summary for fix in FIXES.values()},
        "topologies": {name: load(path).description for name, path in shipped()},
    }
    width = max(len(name) for section in sections.values() for name in section)
    return [
        line
        for title, section in sections.items()
        for line in (title, *(f"  {name:{width}}  {summary}" for name, summary in section.items()))
    ]
