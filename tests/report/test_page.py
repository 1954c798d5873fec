"""The page in a real browser: wide and narrow, light and dark, by keyboard, without script; and how large it gets."""

import dataclasses
import re
from functools import partial

import pytest

from lab.report import forms
from lab.report.page import ROOM
from lab.results.matrix import Column, merge
from lab.results.saved import from_json, to_json
from lab.vocabulary import Behaviour, Family
from tests.support.browser import CONTRAST, expect, open_all

#: A class that the page's script sets.
WIDE = re.compile(r"\bwide\b")
CATALOGUE = {
    "beyond-window": ("the bug and its controls", "data far beyond the client's window"),
    "upstream-regression": ("the bug and its controls", "Kubernetes' own packet"),
}


@pytest.fixture(scope="module")
def address(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "run.html"
    told = dataclasses.replace(report, when=1_795_939_310, command="lab run beyond-window upstream-regression")
    path.write_bytes(forms.write("html", told, catalogue=CATALOGUE))
    return path.as_uri()


@pytest.fixture
def open_page(open_at, address):
    """Open the page of the report, or another."""
    return partial(open_at, address)


def test_the_legend_has_every_outcome_of_a_living_connection_that_the_table_has(report):
    page = forms.write("html", report, catalogue=CATALOGUE).decode()
    legend, table = page.split('class="legend"')[1].split("</ul>")[0], page.split("<table>")[1].split("</table>")[0]
    shown = set(re.findall(r'class="badge fine">(?:<span[^>]*>[^<]*</span>)?([a-z]+)<', table))
    assert "dropped" in shown
    assert shown <= {*re.findall(r'class="badge fine">([a-z]+)<', legend)}


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_is_wider_than_the_window(open_page, width):
    page = open_page(width)
    for step in (lambda: None, lambda: open_all(page)):
        step()
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(open_page, scheme):
    page = open_page(scheme=scheme)
    open_all(page)
    found = page.evaluate(CONTRAST)
    assert len(found) > 300
    assert [one for one in found if one[0] < 4.5] == []
    colors = page.evaluate("[document.body, document.querySelector('h1')].map(e => getComputedStyle(e).color)")
    assert (max(map(int, re.findall(r"\d+", colors[0]))) > 200) is (scheme == "dark")


def test_by_keyboard_to_a_trial(open_page):
    page = open_page()
    stops = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = "(e => [e.tagName, e.textContent.trim(), getComputedStyle(e).outlineStyle])(document.activeElement)"
        stops.append(page.evaluate(focused))
    assert [stop[0] for stop in stops[:4]] == ["A", "INPUT", "SELECT", "DIV"]
    assert stops[0][1] == "To the table"
    assert {stop[2] for stop in stops} == {"solid"}  # one sees where one is
    links = [stop[1] for stop in stops[4:]]
    assert links[0] == "beyond-window, fix none: reset"
    assert links[1].startswith("beyond-window, fix ")
    page.locator("td a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("summary:focus")).to_have_count(1)
    assert page.evaluate("document.activeElement.parentElement.open")
    assert page.evaluate("document.activeElement.textContent") == "beyond-window, fix none: reset"


def test_the_filter(open_page):
    page = open_page()
    everything = page.locator("td[data-o]").count()
    assert page.locator("output").inner_text() == f"{everything} of {everything} trials"
    page.get_by_label("Outcome").select_option("reset")
    assert page.locator("output").inner_text() == f"1 of {everything} trials"
    assert page.locator("details.trial:visible").count() == 1
    assert page.locator("tbody th[scope=row]:visible").all_inner_texts()[0].startswith("beyond-window")
    page.get_by_label("Outcome").select_option("")
    page.get_by_label("Find").fill("upstream LIBERAL")
    assert page.locator("details.trial:visible").count() == 1
    page.get_by_label("Find").fill("no such")
    assert page.locator("output").inner_text() == f"0 of {everything} trials"
    assert page.locator("tbody:visible").count() == 0


def test_without_script_all_is_there(open_page):
    page = open_page(java_script_enabled=False)
    assert not page.locator(".filter").is_visible()
    assert page.locator("details.trial").count() == page.locator("td a").count() > 4
    page.locator("summary").first.click()
    assert page.locator("svg.sequence").first.is_visible()


def test_the_figure_is_there(open_page):
    """The report's five numbers, in their order, on their packets; the leak and what it kills."""
    page = open_page()
    page.locator("td a").first.click()
    picture = page.locator("svg.sequence").first
    assert sorted(picture.locator(".disc").all_text_contents()) == ["1", "2", "3", "4", "5"]
    told = picture.locator("text.leak").all_text_contents()
    assert "10.0.1.2:80 > 10.0.0.2:34567 OOPS" in told
    assert "not translated" in told
    assert "OOPS: from the pod's address; the client only knows 192.168.0.2:80" in told
    assert "INVALID" in picture.locator("text.invalid").all_text_contents()
    assert "server's socket: ECONNRESET" in picture.locator("text.end").all_text_contents()
    assert picture.locator("text.state.new").first.text_content() == "NEW"
    assert [text for text in picture.locator("text").all_text_contents() if text in ("SYN_SENT", "CLOSE")]
    # The leak goes to the client, the injected packet to the node: both from right to left.
    ends = picture.locator(".leak path:first-child, .injected path:first-child").evaluate_all(
        "all => all.map(one => one.getAttribute('d').match(/M(\\d+) \\d+H(\\d+)/).slice(1).map(Number))"
    )
    assert all(start > end for start, end in ends)


def test_the_top_answers_in_a_sentence_and_says_what_was_asked(open_page):
    page = open_page()
    assert page.locator("h1").inner_text().startswith("AFFECTED: on Linux 6.18.44, a node of kube-proxy v1.14")
    facts = page.locator(".facts dt").all_inner_texts()
    assert facts == ["kernel", "kube-proxy", "mode", "backend", "family", "topology", "date", "again by"]
    said = dict(zip(facts, page.locator(".facts dd").all_inner_texts(), strict=True))
    assert said["date"] == "2026-11-29 08:01 UTC"
    assert said["again by"] == "lab run beyond-window upstream-regression"
    assert page.locator("tr.group").all_inner_texts() == ["the bug and its controls"]


def test_printed_there_are_no_controls(open_page):
    page = open_page()
    page.locator("td a").first.click()
    page.emulate_media(media="print")
    assert not page.locator(".filter").is_visible()
    assert not page.locator(".fold").is_visible()
    every = page.locator("details.trial").count()
    assert page.locator("details.trial > summary:visible").count() == every > 1
    assert page.locator("details.trial > div:visible").count() == 1  # the one that is open


def test_all_trials_open_and_close_at_once_but_for_those_that_the_filter_hides(open_page):
    page = open_page()
    page.get_by_label("Find").fill("upstream")
    page.get_by_role("button", name="Open all").click()
    page.get_by_label("Find").fill("")
    every, found = page.locator("details.trial").count(), page.locator("details.trial h3", has_text="upstream").count()
    assert page.locator("details.trial[open]").count() == found < every
    page.get_by_role("button", name="Open all").click()
    assert page.locator("details.trial[open]").count() == every
    page.get_by_role("button", name="Close all").click()
    assert page.locator("details.trial[open]").count() == 0


def test_a_diagram_without_room_says_that_it_scrolls_and_keeps_its_times_in_sight(open_page):
    page = open_page(400)
    page.locator("td a").first.click()
    figure = page.locator("details.trial[open] figure").first
    expect(figure).to_have_class(WIDE)
    assert "scrolls sideways" in figure.locator("figcaption").evaluate("e => getComputedStyle(e, '::after').content")
    times = figure.locator("text.time").first
    before = times.bounding_box()["x"]
    figure.evaluate("e => e.scrollTo(300, 0)")
    expect(figure).to_have_attribute("style", re.compile("--scrolled"))
    assert times.bounding_box()["x"] == pytest.approx(before, abs=1)
    page.set_viewport_size({"width": 2000, "height": 900})
    expect(figure).not_to_have_class(WIDE)


def many(report, count):
    """Return a report of so many trials, each with all its packets."""
    tallies = []
    for number in range(count):
        tally = report.tallies[number % len(report.tallies)]
        trial = dataclasses.replace(tally.trial, case=f"{tally.trial.case}-{number // len(report.tallies)}")
        sample = dataclasses.replace(tally.sample, trial=trial)
        tallies.append(dataclasses.replace(tally, trial=trial, sample=sample))
    return dataclasses.replace(report, tallies=tuple(tallies))


def test_a_thousand_trials_are_below_five_megabytes_and_open_soon(report, open_at, tmp_path):
    data = forms.write("html", many(report, 1000))
    assert len(data) < 5_000_000
    text = data.decode()
    assert text.count('<details class="trial"') == 1000
    assert 50 < text.count('<svg class="sequence"') < 1000
    assert "with their diagrams, for there is room for so many" in text
    assert sum(map(len, re.findall(r"<svg.*?</svg>", text))) <= ROOM
    path = tmp_path / "many.html"
    path.write_bytes(data)
    page = open_at(path.as_uri())
    took = page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
    assert took < 10_000, "milliseconds; two seconds on a machine that does nothing else"


def test_what_was_left_out_is_said(report):
    text = forms.write("html", from_json(to_json(report, packets=False))).decode()
    count = len(report.tallies)
    assert f"{count} of {count} without their packets, which `--packets` would have kept in the file." in text
    assert "<svg" not in text


def test_kernels_are_columns_where_there_are_several(report, open_at, tmp_path):
    older = dataclasses.replace(report, kernel="5.10.1", behaviours={Family.IPV4: Behaviour.STRICT})
    columns = [Column("5.10", "5.10.1", "5.10.1", older), Column("6.18", "6.18.44", "6.18.44", report)]
    columns.append(Column("7.3", "7.3.1", "7.3.1", None, "panicked", ("Kernel panic <here>",)))
    path = tmp_path / "matrix.html"
    path.write_bytes(forms.write("html", merge("0.1.0", columns), catalogue=CATALOGUE))
    page = open_at(path.as_uri(), 360)
    assert page.locator("h2").first.inner_text() == "Cases by kernels"
    assert [text.split()[0] for text in page.locator("thead th").all_inner_texts()] == [
        "case",
        "fix",
        "5.10",
        "6.18",
        "7.3",
    ]
    assert "Kernel panic <here>" in page.locator("pre.console").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
