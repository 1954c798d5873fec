# SPDX-License-Identifier: MIT
"""A matrix as one HTML page that needs nothing else: no script, no network, light and dark."""

from __future__ import annotations

import itertools
from importlib.resources import files

from lab.report import cells
from lab.report.closing import preface, remarks
from lab.report.timeline import timeline_text
from lab.results.matrix import Matrix
from lab.results.places import place


def html(matrix: Matrix) -> str:
    """Return the page. Each cell opens to its timeline."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("lab.report").joinpath("matrix.html.j2").read_text(encoding="utf-8"))
    cases = [(name, list(group)) for name, group in itertools.groupby(cells.rows(matrix), key=lambda row: row[1])]
    return template.render(
        matrix=matrix,
        cases=cases,
        preface=list(preface(matrix)),
        place=place,
        remarks=list(remarks(matrix)),
        timeline_text=timeline_text,
    )
