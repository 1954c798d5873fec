"""docs/one-packet.md is made anew on this kernel, and must say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command import python

CHECKOUT = Path(__file__).parents[2]
MAKER = CHECKOUT / "docs" / "make" / "one_packet.py"
PAGE = CHECKOUT / "docs" / "one-packet.md"
HINT = "if the page is wrong: python docs/make/one_packet.py > docs/one-packet.md"


@pytest.fixture(scope="module")
def made():
    """The page as this machine makes it."""
    done = python(MAKER)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tools(page):
    """Return the line on which the spelling of rules depends: kernel, iptables, nft."""
    return re.search(r"^Made on (.*)\.$", page, re.MULTILINE)[1]


def facts(page):
    """Return the page without the rules' spelling: chains in order, addresses, states, marks, ways and prose."""
    kept, in_block = [], False
    for line in page.splitlines():
        in_block ^= line.startswith("```")
        is_rule = (in_block and line.startswith("  ")) or (line.startswith("|") and "`-A " in line)
        if not is_rule and not line.startswith("Made on"):
            kept.append(line)
    return kept


@pytest.mark.lab_kernel
def test_packets_go_the_way_that_the_page_tells(made):
    assert facts(made) == facts(PAGE.read_text()), HINT


@pytest.mark.lab_kernel
def test_rules_read_as_on_the_page(made):
    page = PAGE.read_text()
    if tools(made) != tools(page):
        pytest.skip(f"not run by the lab: the page shows rules of {tools(page)}; here is {tools(made)}")
    assert made == page, HINT


def test_the_facts_leave_out_spelling_and_nothing_else():
    page = PAGE.read_text()
    spelled = page.replace("-j DNAT", "-j dnat").replace("meta mark &", "meta mark and").replace("nft 1.", "nft 9.")
    assert spelled != page
    assert facts(spelled) == facts(page)
    for fact in ("nat KUBE-MARK-MASQ\n", "= dropped\n", "ct state invalid", "mark 0x4000\n", "[ASSURED]\n"):
        assert facts(page.replace(fact, "another\n", 1)) != facts(page)


def test_links_lead_somewhere():
    page = PAGE.read_text()
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", page, re.M)
    }
    links = set(re.findall(r"\]\(#(.*?)\)", page))
    assert links
    assert links <= headings
    assert "(docs/one-packet.md)" in (CHECKOUT / "README.md").read_text()
