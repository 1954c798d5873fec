# SPDX-License-Identifier: MIT
"""A matrix as one HTML page that needs nothing else: no network, nothing of others, light and dark."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from lab.report.page import Catalogue, Page
from lab.results.matrix import Matrix


def html(matrix: Matrix, catalogue: Catalogue | None = None) -> str:
    """Return the page. Each cell leads to its trial.

    :param catalogue: what is known of the cases; None for nothing, and no groups.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def made(text: str) -> Markup:
        return Markup(text)  # noqa: S704 - of this package's own files, or escaped

    def finished(value: object) -> object:
        """Escape by hand, for in text a > is one: pages are a tenth smaller for it."""
        return value if isinstance(value, Markup) else made(escape(str(value), quote=True).replace("&gt;", ">"))

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=finished
    )
    environment.filters["svg"] = made
    here = files("lab.report")
    template = environment.from_string(here.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        matrix=matrix,
        page=Page(matrix, catalogue or {}),
        css=made(here.joinpath("page.css").read_text(encoding="utf-8")),
        script=made(here.joinpath("page.js").read_text(encoding="utf-8")),
    )
