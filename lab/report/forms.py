# SPDX-License-Identifier: MIT
"""The forms that results are written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lab.report.html import html
from lab.report.junit import junit
from lab.report.markdown import markdown
from lab.report.pcapng import pcapng
from lab.results import matrix as matrices
from lab.results import result
from lab.results.matrix import Matrix
from lab.results.result import Report

_FORMS: Final[dict[str, Callable[[Matrix], str]]] = {
    "json": matrices.to_json,
    "html": html,
    "junit": junit,
    "md": markdown,
}


def write(form: str, found: Report | Matrix) -> bytes:
    """Return results in one of the forms ``json``, ``html``, ``junit``, ``md`` and ``pcapng``: all but that are UTF-8.

    A report's JSON is its own; its other forms are those of a matrix with one kernel.
    """
    if form == "json" and isinstance(found, Report):
        return _text(result.to_json(found))
    matrix = matrices.alone(found) if isinstance(found, Report) else found
    return pcapng(matrix) if form == "pcapng" else _text(_FORMS[form](matrix))


def _text(text: str) -> bytes:
    return f"{text}\n".encode()
