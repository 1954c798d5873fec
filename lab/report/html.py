# SPDX-License-Identifier: MIT
"""Results as one HTML page that needs nothing else: no network, nothing of others, light and dark."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from lab.report.page import Catalogue, Page
from lab.report.reach_page import ReachPage
from lab.results.matrix import Matrix
from lab.results.reach import ReachReport


def html(matrix: Matrix, catalogue: Catalogue | None = None) -> str:
    """Return the page of a matrix. Each cell leads to its trial.

    :param catalogue: what is known of the cases; None for nothing, and no groups.
    """
    return _rendered("page.html.j2", Page(matrix, catalogue or {}))


def reach_html(found: ReachReport) -> str:
    """Return the page of what `lab reach` found out. Each cell leads to what is known of it."""
    return _rendered("reach.html.j2", ReachPage(found))


def _rendered(template: str, page: Page | ReachPage) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    def made(text: str) -> Markup:
        return Markup(text)  # noqa: S704 - of this package's own files, or escaped

    def finished(value: object) -> object:
        """Escape by hand, for in text a > is one: pages are a tenth smaller for it."""
        return value if isinstance(value, Markup) else made(escape(str(value), quote=True).replace("&gt;", ">"))

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finished,
    )
    environment.filters["svg"] = made
    made_of = environment.get_template(template)
    return made_of.render(page=page, css=made(_read("page.css")), script=made(_read("page.js")))


def _read(name: str) -> str:
    return files("lab.report").joinpath(name).read_text(encoding="utf-8")
