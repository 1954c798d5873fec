"""Results from a file, and what other kernels, nodes and machines could have given."""

import dataclasses
from pathlib import Path

import pytest

from lab.results.result import Expectation, Tally
from lab.results.saved import from_json
from tests.support.browser import CHROMIUM, QUIET

RESULTS = Path(__file__).parent / "results.json"  # `lab run beyond-window upstream-regression --json`, on Linux 6.18


@pytest.fixture(scope="module")
def report():
    return from_json(RESULTS.read_text())


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield running
        running.close()


@pytest.fixture
def open_at(browser):
    """Open pages, and see at the end that nothing was complained of and nothing was asked of anybody."""
    complaints, asked, contexts = [], [], []

    def opened(at, width=1400, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(at)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.partition("#")[0].rpartition(".")[2] for url in asked} == {"html"}


def tally(report, case, fix):
    return next(one for one in report.tallies if (one.trial.case, one.trial.fix) == (case, fix))


def elsewhere(report, **where):
    """Return the report of the same trials in another place, or of other cases."""

    def moved(one):
        trial = dataclasses.replace(one.trial, **where)
        sample = dataclasses.replace(one.sample, trial=trial)
        return dataclasses.replace(one, trial=trial, sample=sample)

    return dataclasses.replace(report, tallies=tuple(map(moved, report.tallies)))


def only(report, case, *fixes):
    """Return the report of these trials alone; all fixes where none are named."""
    wanted = [one for one in report.tallies if one.trial.case == case and (not fixes or one.trial.fix in fixes)]
    return dataclasses.replace(report, tallies=tuple(wanted))


def with_outcomes(report, case, fix, *outcomes, disagreements=()):
    """Return the report where one trial was run anew and came out so, each time as expected unless witnesses differ."""
    before = tally(report, case, fix)
    counted = Tally(before.trial)
    for outcome in outcomes:
        verdict = dataclasses.replace(before.sample.verdict, outcome=outcome, disagreements=disagreements)
        expected = Expectation(verdict.judgement, outcome)
        counted = counted.and_then(dataclasses.replace(before.sample, verdict=verdict, expected=expected))
    tallies = (counted if one is before else one for one in report.tallies)
    return dataclasses.replace(report, tallies=tuple(tallies))


def joined(*reports):
    """Return one report with the trials of all."""
    return dataclasses.replace(reports[0], tallies=tuple(one for report in reports for one in report.tallies))
