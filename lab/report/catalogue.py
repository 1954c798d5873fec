"""What a case is about, for a terminal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from lab.cases import Case
from lab.fixes import FIXES
from lab.places import topology
from lab.remembered import Remembered
from lab.report.tone import style_of
from lab.words import Behaviour


def story(case: Case, last: Sequence[Remembered]) -> Iterator[Text | Table]:
    """Tell a case: its title, its story, its threads, what is expected on a node without a drop of its own, what came.

    :param last: what came of it when it was run last.
    """
    yield Text(f"{case.name}: {case.title}\n", "bold")
    yield Text(f"{case.story}\n")
    yield Text(f"See {', '.join(case.threads)}\n", "dim")
    drawn = Table(title="expected", title_justify="left")
    drawn.add_column("fix")
    for behaviour in Behaviour:
        drawn.add_column(f"kernel: {behaviour}")
    for fix in FIXES.values():
        expected = (case.expected(behaviour, fix.protection) for behaviour in Behaviour)
        drawn.add_row(fix.name, *(f"{one.judgement or 'nothing judged'}, {one.outcome}" for one in expected))
    yield drawn
    yield Text()
    yield from _came(last)
    if not last:
        yield Text(
            f"Not run here yet: `lab run {case.name}` does that, and keeps what comes of it for this place.", "dim"
        )


def _came(last: Sequence[Remembered]) -> Iterator[Text | Table]:
    """Tell what came of a case: a table for each run of which something is left, the newest first."""
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
                outcome.append("\nNOT AS EXPECTED", "bold red")
            drawn.add_row(one.trial.fix, outcome, one.decided_by)
        yield drawn


def _place(one: Remembered) -> str:
    """Tell when and where a trial was run."""
    trial = one.trial
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.when))
    backend = f" by {trial.backend}" if trial.backend else ""
    service = f", topology {topology(trial)}" if trial.service else ""
    return f"{day}, Linux {one.kernel}: {trial.proxy_mode} {trial.proxy_version}{backend}, {trial.family}{service}"


def as_data(case: Case, last: Sequence[Remembered]) -> dict[str, object]:
    """Return the same for a program."""
    return {
        "name": case.name,
        "title": case.title,
        "story": case.story,
        "threads": case.threads,
        "slow": case.slow,
        "expected": {
            behaviour: {fix.name: asdict(case.expected(behaviour, fix.protection)) for fix in FIXES.values()}
            for behaviour in Behaviour
        },
        "last": [asdict(one) for one in last],
    }
