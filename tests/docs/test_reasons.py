"""docs/reasons.md is what the table of conntrack's reasons says."""

from __future__ import annotations

from lab.reasons import REASONS
from tests.support.command import CHECKOUT, python
from tests.support.pages import DOCS


def test_the_page_is_the_table():
    made = python(CHECKOUT / "docs" / "make" / "reasons.py").stdout
    page = (DOCS / "reasons.md").read_text()
    assert made == page, "make it anew: python docs/make/reasons.py > docs/reasons.md"
    for one in REASONS:
        assert one.meaning in page
