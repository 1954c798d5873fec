"""What a case is about, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from lab.cases import Case
from lab.fixes import FIXES
from lab.words import Behaviour


def story(case: Case) -> Iterator[Text | Table]:
    """Tell a case: its title, its story, its threads, and what is expected on a node without a drop of its own."""
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
