# SPDX-License-Identifier: MIT
"""The forms that results are written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lab.errors import InputError
from lab.report.html import html, reach_html
from lab.report.junit import junit
from lab.report.markdown import markdown
from lab.report.page import Catalogue
from lab.report.pcapng import pcapng
from lab.results import reach_saved
from lab.results.matrix import Matrix, alone
from lab.results.reach import ReachReport
from lab.results.result import Report
from lab.results.saved import to_json

_FORMS: Final[dict[str, Callable[[Matrix], str]]] = {
    "junit": junit,
    "md": markdown,
}


#: The forms that what `lab reach` found out is written in.
REACH_FORMS: Final[dict[str, Callable[[ReachReport], bytes]]] = {
    "json": reach_saved.to_json,
    "html": lambda found: _text(reach_html(found)),
}


def write_reach(form: str, found: ReachReport) -> bytes:
    """Return what `lab reach` found out in one of :data:`REACH_FORMS`, in UTF-8.

    :raises InputError: it is another.
    """
    if form not in REACH_FORMS:
        raise InputError(f"--{form} of what `lab reach` found out", cure=f"take --{' or --'.join(REACH_FORMS)}")
    return REACH_FORMS[form](found)


def write(form: str, found: Report | Matrix, *, packets: bool = False, catalogue: Catalogue | None = None) -> bytes:
    """Return results in one of the forms ``json``, ``html``, ``junit``, ``md`` and ``pcapng``: all but that are UTF-8.

    A report's JSON is its own; its other forms are those of a matrix with one kernel.

    :param packets: whether all packets are in the JSON.
    :param catalogue: what is known of the cases, for the page.
    """
    if form == "json":
        return to_json(found, packets=packets)
    matrix = alone(found) if isinstance(found, Report) else found
    if form == "pcapng":
        return pcapng(matrix)
    return _text(html(matrix, catalogue) if form == "html" else _FORMS[form](matrix))


def _text(text: str) -> bytes:
    return f"{text}\n".encode()
