"""docs/CONTRIBUTING.md writes a case: it must be one, and pass, and fail where the page says so."""

import asyncio
import re
from pathlib import Path

import pytest

from lab.cases import CASES
from lab.fixes import FIXES
from lab.report.terminal import tables
from lab.results.result import Tally
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Family
from tests.support.command import pytest_in

PAGE = (Path(__file__).parents[2] / "docs" / "CONTRIBUTING.md").read_text()
CASE_FILE, TEST_FILE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def rows(section):
    """Return the cells of a section's table."""
    table = PAGE.split(f". {section}\n")[1].split("\n## ")[0]
    return [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", table, re.MULTILINE)][1:]


def run(source, fix):
    module = {}
    exec(compile(source, "fin_beyond_window.py", "exec"), module)

    async def observe():
        answer = await probe.ask(Family.IPV4)
        return await runner.run(Setting(module["CASE"], FIXES[fix], load("kube-proxy"), Family.IPV4), answer)

    return asyncio.run(observe())


@pytest.mark.kernel
@pytest.mark.parametrize(("fix", "word", "outcome"), rows("See it pass"))
def test_the_case_gives_what_the_page_says(fix, word, outcome):
    result = run(CASE_FILE, fix)
    assert result.as_expected
    assert (result.verdict.judgement, result.verdict.outcome) == (word, outcome)
    assert result.trial.case not in CASES  # or it would be no new case


@pytest.mark.kernel
@pytest.mark.parametrize(("change", "fix", "words"), rows("See it fail"))
def test_it_fails_where_the_page_says_so(change, fix, words, capsys):
    from rich.console import Console

    old, new = re.findall("`([^`]+)`", change)
    changed = CASE_FILE.replace("import KILLS_UNLESS_LIBERAL", "import ACCEPTED_ALWAYS, KILLS_UNLESS_LIBERAL")
    assert old in changed
    result = run(changed.replace(old, new), fix)
    assert not result.as_expected
    console = Console(width=400)
    with console.capture() as capture:
        for table in tables([Tally(result.trial).and_then(result)], 400):
            console.print(table)
    assert words.strip("`") in capture.get()


@pytest.mark.kernel
def test_so_does_its_own_test(pytester):
    pytester.makepyfile(fin_beyond_window=CASE_FILE, test_fin=TEST_FILE)
    pytester.syspathinsert()
    pytest_in(pytester.path).assert_outcomes(passed=6)


def test_every_word_that_it_speaks_of_exists():
    from lab.scenario import ConnectionScenario, Scenario, ScriptedScenario

    assert ScriptedScenario
    for word in ("establish", "inject", "go_on", "from_server", "judgement", "expect_entry", "find", "barrier"):
        assert f"{word}" in PAGE
        assert hasattr(ConnectionScenario, word) or hasattr(Scenario, word)
