"""docs/own-case.md writes a case and a fix: each must be one, and pass, and fail where the page says so."""

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
from tests.support.command import run_pytest

PAGE = (Path(__file__).parents[2] / "docs" / "own-case.md").read_text()
CASE_FILE, TEST_FILE, FIX_FILE, FIX_TEST_FILE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


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


@pytest.mark.lab_kernel
@pytest.mark.parametrize(("fix", "word", "outcome"), rows("See it pass"))
def test_the_case_gives_what_the_page_says(fix, word, outcome):
    result = run(CASE_FILE, fix)
    assert result.as_expected
    assert (result.verdict.judgement, result.verdict.outcome) == (word, outcome)
    assert result.trial.case not in CASES  # or it would be no new case


@pytest.mark.lab_kernel
@pytest.mark.parametrize(("change", "fix", "words"), rows("See it fail"))
def test_it_fails_where_the_page_says_so(change, fix, words, capsys):
    from rich.console import Console

    old, new = re.findall("`([^`]+)`", change)
    assert old in CASE_FILE
    result = run(CASE_FILE.replace(old, new), fix)
    assert not result.as_expected
    console = Console(width=400)
    with console.capture() as capture:
        for table in tables([Tally(result.trial).and_then(result)], 400):
            console.print(table)
    assert words.strip("`") in capture.get()


@pytest.mark.lab_kernel
def test_so_does_its_own_test(pytester):
    pytester.makepyfile(fin_beyond_window=CASE_FILE, test_fin=TEST_FILE)
    pytester.syspathinsert()
    run_pytest(pytester.path).assert_outcomes(passed=6)


@pytest.mark.lab_kernel
@pytest.mark.parametrize("protection", ["DROP_FORWARD", "DROP_PREROUTING"])
def test_a_fix_is_tried_and_one_that_claims_too_much_fails(pytester, protection):
    source = FIX_FILE.replace("Protection.DROP_FORWARD", f"Protection.{protection}")
    pytester.makepyfile(drop_in_mangle=source, test_fix=FIX_TEST_FILE)
    pytester.syspathinsert()
    done = run_pytest(pytester.path)
    failed = 2 * (protection == "DROP_PREROUTING")
    done.assert_outcomes(passed=6 - failed, failed=failed)


def test_every_word_that_it_speaks_of_exists():
    from dataclasses import fields

    from lab import Fix, NodeChange, ScriptedScenario, cases, scenario
    from lab.wire.craft import Segment

    assert ScriptedScenario is not None
    for word in (
        "establish",
        "inject",
        "go_on",
        "from_server",
        "from_client",
        "judgement",
        "expect_entry",
        "find",
        "barrier",
    ):
        assert word in PAGE
        assert hasattr(scenario.ConnectionScenario, word)
    segment = {field.name for field in fields(Segment)} - {
        "source",
        "destination",
        "sequence",
        "acknowledgement",
        "payload",
    }
    assert {word for word in segment if f"`{word}`" in PAGE} == segment
    its_rows = {name for name in vars(cases.case) if name.endswith(("_LIBERAL", "_DROPPED", "_ALWAYS"))}
    assert its_rows == set(re.findall(r"`([A-Z_]+_(?:LIBERAL|DROPPED|ALWAYS))`", PAGE))
    assert {field.name for field in fields(Fix)} == {"name", "summary", "change", "protection", "lasting", "known"}
    assert {field.name for field in fields(NodeChange)} == {"sysctls", "iptables", "nftables", "script", "texts"}
