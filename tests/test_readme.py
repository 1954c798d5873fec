"""What the README shows must work as it stands there."""

import re
from pathlib import Path

import pytest

from lab.topology.reader import parse

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language):
    [text] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return text


def test_the_topology_is_one():
    assert [host.name for host in parse(block("yaml")).clients] == ["client"]


@pytest.mark.kernel
def test_the_example_test_passes(pytester):
    pytester.makepyfile(block("python"))
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_every_command_that_is_shown_exists():
    from typer.main import get_command

    from lab.cli import app

    commands = get_command(app).commands
    shown = set(re.findall(r"^    (?:sudo )?lab ([a-z]+)", README, re.MULTILINE))
    assert shown >= {"run", "list", "rules", "doctor", "up", "exec", "shell", "status", "down", "topology"}
    assert shown <= set(commands)


def test_the_catalogues_table_is_what_is_expected():
    from lab.cases import CASES
    from lab.fixes import FIXES
    from lab.topology.reader import load
    from lab.trial import Setting
    from lab.words import Behaviour, Family

    section = README.split("## The catalogue")[1].split("\n## ")[0]
    header, *rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    fixes = header.split(" | ")[2:]
    assert fixes == list(FIXES)
    assert [row.split(" | ")[0] for row in rows] == list(CASES)
    for name, _word, *cells in (row.split(" | ") for row in rows):
        for fix, cell in zip(fixes, cells, strict=True):
            setting = Setting(CASES[name], FIXES[fix], load("kube-proxy"), Family.IPV4)
            expected = CASES[name].expected(Behaviour.IGNORES_LATE, setting.protection)
            assert cell.strip("*") == expected.outcome, (name, fix)
