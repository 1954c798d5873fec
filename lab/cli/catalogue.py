# SPDX-License-Identifier: MIT
"""What a case is about, for a terminal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text

from lab.cases import AnyCase
from lab.fixes import FIXES, Protection
from lab.kubeproxy import changes
from lab.report.tone import style_of
from lab.results.history import Remembered
from lab.results.places import topology
from lab.results.result import Expectation
from lab.tones import OOPS, QUIET
from lab.vocabulary import Behaviour

#: What nodes do with what is for a VIP, besides translating it, in the order in which they came to it.
_NODES: Final = {
    "": Protection.NOTHING,
    f"in nftables mode from v1.{changes.NFT_MAPS.minor} on": Protection.REJECT_UNTRANSLATED,
    f"in nftables mode from v1.{changes.DROPS_UNALLOCATED.minor} on, with service-cidrs": (
        Protection.REJECT_UNTRANSLATED | Protection.DROP_UNALLOCATED
    ),
}


def story(case: AnyCase, last: Sequence[Remembered]) -> Iterator[Text | Table]:
    """Show a case: its title, its story, its threads, what is expected on a node without a drop of its own, what came.

    :param last: what came of it when it was run last.
    """
    yield Text(f"{case.name}: {case.title}\n", "bold")
    yield Text(f"{case.story}\n")
    yield Text(f"See {', '.join(case.threads)}\n", QUIET)
    for where, expected in _expected(case).items():
        drawn = Table(title=f"expected {where}".rstrip(), title_justify="left")
        drawn.add_column("fix")
        for behaviour in Behaviour:
            drawn.add_column(f"kernel: {behaviour}")
        for fix in FIXES:
            row = (expected[behaviour][fix] for behaviour in Behaviour)
            drawn.add_row(fix, *(f"{one.judgement or 'nothing judged'}, {one.outcome}" for one in row))
        yield drawn
    yield Text()
    yield from _came(last)
    if not last:
        yield Text(
            f"Not run here yet: `lab run {case.name}` does that, and keeps what comes of it for this place.", QUIET
        )


def _expected(case: AnyCase) -> dict[str, dict[Behaviour, dict[str, Expectation]]]:
    """Return what is expected by kernel and fix: anywhere, and on the nodes where that is another thing."""
    found: dict[str, dict[Behaviour, dict[str, Expectation]]] = {}
    for where, own in _NODES.items():
        expected = {
            behaviour: {fix.name: case.expected(behaviour, fix.protection | own) for fix in FIXES.values()}
            for behaviour in Behaviour
        }
        if not found or expected != [*found.values()][-1]:
            found[where] = expected
    for own_nodes in case.elsewhere:
        found[own_nodes.where] = {
            behaviour: {fix.name: row(fix.protection) for fix in FIXES.values()}
            for behaviour, row in own_nodes.expectations.items()
        }
    return found


def _came(last: Sequence[Remembered]) -> Iterator[Text | Table]:
    """Report what came of a case: a table for each run of which something is left, the newest first."""
    known = {fix: place for place, fix in enumerate(FIXES)}
    by_run = sorted(last, key=lambda one: (-one.when, _place(one), known.get(one.trial.fix, len(known))))
    for (_when, place), group in itertools.groupby(by_run, key=lambda one: (one.when, _place(one))):
        yield Text(f"came of it on {place}", "italic")
        drawn = Table()
        drawn.add_column("fix", no_wrap=True)
        drawn.add_column("outcome", no_wrap=True)
        drawn.add_column("decided by")
        for one in group:
            outcome = Text(one.outcome, style_of(one.outcome))
            if not one.as_expected:
                outcome.append("\n".join(("", "NOT AS EXPECTED", *one.surprise.split("; "))).rstrip(), OOPS)
            drawn.add_row(Text(one.trial.fix), outcome, Text(one.decided_by))
        yield drawn


def _place(one: Remembered) -> str:
    """Return when and where a trial was run."""
    trial = one.trial
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.when))
    backend = f" by {trial.backend}" if trial.backend else ""
    service = f", topology {topology(trial)}" if trial.service else ""
    return f"{day}, Linux {one.kernel}: {trial.proxy_mode} {trial.proxy_version}{backend}, {trial.family}{service}"


@dataclass(frozen=True)
class Shown:
    """A case, as programs get it.

    :param expected: by the kernel's behaviour, then by fix.
    :param expected_elsewhere: the same of nodes on which that is another thing, by which these are.
    :param last: what came of it when it was run last on this machine.
    """

    name: str
    title: str
    story: str
    threads: tuple[str, ...]
    slow: bool
    expected: dict[Behaviour, dict[str, Expectation]]
    expected_elsewhere: dict[str, dict[Behaviour, dict[str, Expectation]]]
    last: tuple[Remembered, ...]


def shown(case: AnyCase, last: Sequence[Remembered]) -> Shown:
    """Return the same for a program."""
    expected = _expected(case)
    return Shown(
        name=case.name,
        title=case.title,
        story=case.story,
        threads=case.threads,
        slow=case.slow,
        expected=expected.pop(""),
        expected_elsewhere=expected,
        last=tuple(last),
    )
