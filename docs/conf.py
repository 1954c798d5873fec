"""The pages as a site: `sphinx-build -W docs build/site`. README and the other top files are pages of it as well."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CHECKOUT = Path(__file__).resolve().parents[1]

project = "kube-proxy-lab"
version = release = tomllib.loads((_CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["make"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = project
html_show_sphinx = False
html_copy_source = False

#: Where a top file is on the site.
_PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project.md#contributing",
    "CHANGELOG.md": "project.md#changelog",
    "SECURITY.md": "project.md#security",
    "LICENSE": "../LICENSE",
}


_WANTED = re.compile(r"^<!-- (#*) ?([A-Z]+\.md) -->$", re.MULTILINE)


def _fill(app: Sphinx, _page: str, source: list[str]) -> None:
    """Put top files where a page wants them (`<!-- README.md -->`), and have links lead to pages of the site."""
    for _deeper, name in _WANTED.findall(source[0]):
        app.env.note_dependency(str(_CHECKOUT / name))  # the page is made anew when that has changed
    text = _WANTED.sub(_read, source[0])
    for file, place in _PLACES.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(file)}\)", f"]({place})", text)
    source[0] = text


def _read(found: re.Match[str]) -> str:
    """Return a top file, its headings as much deeper as the comment says, and its links seen from here."""
    text = (_CHECKOUT / found[2]).read_text()
    return re.sub(r"^(?=#+ )", found[1], text, flags=re.MULTILINE).replace("](docs/", "](")


def setup(app: Sphinx) -> None:
    """Have Sphinx call what is above."""
    app.connect("source-read", _fill)
