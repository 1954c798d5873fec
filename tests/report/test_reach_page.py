"""The page of `lab reach` in a real browser: its answer, its tables, and what each cell folds away."""

import dataclasses
import re
from functools import partial
from pathlib import Path

import pytest

from lab.report import forms
from lab.results.reach_saved import from_data
from lab.results.saved import parsed
from tests.support.browser import CONTRAST, expect, open_all

#: `lab reach --proxy-version v1.36 --trace --json` in both modes, in nftables mode with a firewall's drop as a --fix.
SAVED = Path(__file__).parents[1] / "results" / "reach-version-1.json"
PAPER = 718  # pixels: A4 between the margins of a browser


@pytest.fixture(scope="module")
def found():
    return from_data(*parsed(SAVED.read_bytes()))


@pytest.fixture(scope="module")
def address(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("reach") / "reach.html"
    path.write_bytes(forms.write_reach("html", dataclasses.replace(found, command="lab reach --trace")))
    return path.as_uri()


@pytest.fixture
def open_page(open_at, address):
    return partial(open_at, address)


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_window(open_page, width):
    page = open_page(width)
    for step in (lambda: None, lambda: open_all(page)):
        step()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        clipped = "[...document.querySelectorAll('.trial')].filter(one => one.scrollWidth > one.clientWidth).length"
        assert page.evaluate(clipped) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(open_page, scheme):
    page = open_page(scheme=scheme)
    open_all(page)
    seen = page.evaluate(CONTRAST)
    assert len(seen) > 300
    assert [one for one in seen if one[0] < 4.5] == []


def test_the_top_answers_in_a_sentence_and_says_what_was_asked(open_page, found):
    page = open_page()
    title = page.locator("h1").inner_text()
    assert title.startswith(f"NOT AS DOCUMENTED: uplink on Linux {found.kernel}, 2 kube-proxies. 26 cells")
    assert "23 of 26 as Kubernetes documents it" in title
    said = page.locator("ul.remarks li").all_inner_texts()
    assert len(said) == 3
    assert all("nftables v1.36: times out at node. Expected: server, as " in words for words in said)
    facts = dict(
        zip(page.locator(".facts dt").all_inner_texts(), page.locator(".facts dd").all_inner_texts(), strict=True)
    )
    assert list(facts) == ["kernel", "kube-proxy", "family", "topology", "date", "again by"]
    assert facts["kube-proxy"] == "iptables v1.36 (nft), nftables v1.36"
    assert facts["again by"] == "lab reach --trace"


def test_a_cell_leads_by_keyboard_to_who_answered_which_rule_decided_and_the_entry(open_page):
    page = open_page()
    for _ in range(5):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className").startswith("badge")
    page.locator("td", has_text="NOT AS EXPECTED").first.locator("a").focus()
    page.keyboard.press("Enter")
    expect(page.locator("summary:focus")).to_have_count(1)
    told = page.locator("details[open]").inner_text()
    assert "not as expected: times out at node" in told
    assert re.search(r"where it stopped\s+node: it came in by outside and went no further", told)
    assert re.search(r"rule\s+dropped at node by firewall c rule 1: ip saddr 203.0.113.2 ct state new drop", told)
    assert re.search(r"conntrack\s+node has no entry of it", told)
    page.locator("td a", has_text="server, as 10.0.0.2").first.click()
    told = page.locator("details[open]").first.inner_text()
    assert re.search(r"answered by\s+server at 10.0.1.2:80", told)
    assert re.search(r"source\s+10.0.0.2:\d+ asked, and the server saw 10.0.0.2:\d+: kept", told)
    assert re.search(r"rule\s+led on at node by nat KUBE-SEP-\S+ rule 2 \(kube-proxy\)", told)


def test_the_filter_finds_what_differs(open_page):
    page = open_page()
    assert page.locator("output").inner_text() == "26 of 26 cells"
    options = page.locator("select option").all_inner_texts()
    assert options == ["all", "connected", "refused", "times out", "not as expected", "otherwise than to the left"]
    page.get_by_label("Outcome").select_option("otherwise than to the left")
    assert page.locator("output").inner_text() == "4 of 26 cells"
    assert page.locator("tbody tr:visible").count() == 4
    assert page.locator("details.trial:visible").count() == 4
    page.get_by_label("Outcome").select_option("")
    page.get_by_label("Find").fill("outside ENDPOINT")
    assert page.locator("output").inner_text() == "2 of 26 cells"


def test_without_script_all_is_there(open_page):
    page = open_page(java_script_enabled=False)
    assert not page.locator(".filter").is_visible()
    assert page.locator("details.trial").count() == page.locator("td a").count() == 26
    page.locator("summary").first.click()
    assert page.locator("dl.sources").first.is_visible()


def test_of_one_kube_proxy_addresses_are_columns(found, open_at, tmp_path):
    path = tmp_path / "one.html"
    path.write_bytes(forms.write_reach("html", dataclasses.replace(found, reaches=found.reaches[:1])))
    page = open_at(path.as_uri())
    assert page.locator("h1").inner_text().startswith("AS DOCUMENTED: uplink on Linux ")
    headings = [text.split()[0] for text in page.locator("thead th").all_inner_texts()]
    assert headings == ["client", "vip", "nodeport", "localhost", "endpoint"]
    assert page.locator("tbody tr").count() == 4


def test_on_paper_a_table_of_many_addresses_is_whole(found, open_at, tmp_path):
    path = tmp_path / "paper.html"
    many = dataclasses.replace(found, reaches=(widened(found.reaches[0]),))
    path.write_bytes(forms.write_reach("html", many))
    page = open_at(path.as_uri(), PAPER)
    assert page.locator("thead th").count() == 9
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def widened(of):
    """Return what was found out with as many addresses as `lab reach services` asks."""
    [*cells] = (cell for cell in of.cells if cell.asked.protocol == "tcp")
    more = (
        dataclasses.replace(cell, asked=dataclasses.replace(cell.asked, address=f"198.51.100.{n}:30080"))
        for cell in cells[:1]
        for n in range(1, 9)
    )
    return dataclasses.replace(of, cells=tuple(more))


def test_what_nothing_is_held_against_is_called_so(found):
    one = found.reaches[0]
    cells = tuple(dataclasses.replace(cell, expected=None) for cell in one.cells)
    open_ = dataclasses.replace(found, reaches=(dataclasses.replace(one, cells=cells),))
    assert "ASKED, AND HELD AGAINST NOTHING: uplink" in forms.write_reach("html", open_).decode()
