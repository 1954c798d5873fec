"""docs/ as a site: each page is in its navigation, each link and anchor leads somewhere, and nothing is loaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import CHECKOUT, DOCS, PAGES, anchors, links

#: Top files that are pages of the site as well.
TOP = [CHECKOUT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]


def test_the_navigation_names_each_page():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(), re.DOTALL | re.MULTILINE)
    named = [line for tree in trees for line in tree.splitlines() if re.fullmatch(r"[\w-]+", line)]
    assert sorted(named) == sorted({page.stem for page in DOCS.glob("*.md")} - {"index"})


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_every_page_is_linked_from_another():
    linked = {(page.parent / path).resolve() for page in [*PAGES, *TOP] for path, _anchor in links(page) if path}
    assert {page for page in DOCS.glob("*.md") if page not in linked} <= {DOCS / "index.md", DOCS / "project.md"}


def test_it_is_built_strictly_and_loads_nothing(tmp_path):
    pytest.importorskip("sphinx", reason="the generator is not installed: pip install --group docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees", DOCS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.glob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]*)\"", page.read_text())
        loaded += re.findall(r"<link[^>]* href=\"([^\"]*)\"", page.read_text())
        assert not [one for one in loaded if re.match(r"(?:https?:)?//", one)], page.name
    sheets = "".join(sheet.read_text() for sheet in (tmp_path / "_static").rglob("*.css"))
    assert not re.search(r"(?:@import\s|url\()[\"']?(?:https?:)?//", sheets)


def test_a_page_is_made_anew_when_the_top_file_in_it_has_changed(tmp_path):
    pytest.importorskip("sphinx", reason="the generator is not installed: pip install --group docs")
    (copy := tmp_path / "checkout").mkdir()
    for name in ("README.md", "LICENSE", "pyproject.toml", *(top.name for top in TOP)):
        shutil.copy(CHECKOUT / name, copy)
    shutil.copytree(DOCS, copy / "docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-d", tmp_path / "trees", copy / "docs", tmp_path / "site"]
    subprocess.run(command, capture_output=True, check=True)
    with (copy / "README.md").open("a") as file:
        file.write("* Something new.\n")
    subprocess.run(command, capture_output=True, check=True)
    assert "Something new." in (tmp_path / "site/index.html").read_text()
