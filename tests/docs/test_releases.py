"""docs/releases.md is what the table of changes says."""

from __future__ import annotations

from pathlib import Path

from tests.support.command import python

CHECKOUT = Path(__file__).parents[2]


def test_the_page_is_the_table():
    maker = CHECKOUT / "docs" / "make" / "releases.py"
    made = python(maker).stdout
    page = (CHECKOUT / "docs" / "releases.md").read_text()
    assert made == page, "make it anew: python docs/make/releases.py > docs/releases.md"
