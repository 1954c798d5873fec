"""docs/results.md and docs/reach.md: their pictures are what comes of it here."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.support.pages import DOCS


def told(picture: str) -> list[str]:
    """Return the picture's letters, without what is another number each time."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", picture)
    return sorted(word for text in texts if (word := re.sub(r"^[\d.]+ ms$|bound \d+|\d+ s left", "", text)))


@pytest.mark.lab_kernel
@pytest.mark.parametrize("which", ["sequence", "window"])
def test_the_picture_is_of_what_comes_of_it_here(which):
    from docs.make.diagram import draw

    shown, drawn = (DOCS / f"{which}.svg").read_text().rstrip(), draw(which)
    assert told(shown) == told(drawn), f"draw it anew: python docs/make/diagram.py {which} > docs/{which}.svg"
    assert re.findall(r"<style>.*?</style>", shown, re.DOTALL) == re.findall(r"<style>.*?</style>", drawn, re.DOTALL)
    assert ElementTree.fromstring(shown).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"(?:href|src)=|url\(|@import|/home/|/root/|/tmp/", shown)


@pytest.mark.lab_kernel
def test_the_picture_of_reach_is_of_what_comes_of_it_here():
    from docs.make.reach import draw, run

    shown = (DOCS / "reach.svg").read_text()
    assert told(shown) == told(draw(run())), "draw it anew: PYTHONPATH=. python docs/make/reach.py > docs/reach.svg"
    assert not re.search(r"(?:href|src)=|url\((?!#)|@import|/home/|/root/|/tmp/", shown)
