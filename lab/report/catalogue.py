"""What a case is about, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from lab.cases import Case, Protection
from lab.words import Behaviour


def story(case: Case) -> Iterator[Text | Table]:
    """Tell a case: its title, its story, its threads, and what is expected of it."""
    yield Text(f"{case.name}: {case.title}\n", "bold")
    yield Text(f"{case.story}\n")
    yield Text(f"See {', '.join(case.threads)}\n", "dim")
    drawn = Table(title="expected", title_justify="left")
    drawn.add_column("kernel")
    for protection in Protection:
        drawn.add_column(f"protection: {protection}")
    for behaviour in Behaviour:
        row = case.expectations[behaviour]
        cells = (f"{row[protection].judgement}, {row[protection].outcome}" for protection in Protection)
        drawn.add_row(behaviour, *cells)
    yield drawn
