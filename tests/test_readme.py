"""What the README shows must work as it stands there."""

import importlib.util
import os
import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lab.cases import CASES
from lab.fixes import FIXES
from lab.topology.reader import parse

CHECKOUT = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("catalogue", CHECKOUT / "tests" / "docs" / "catalogue.py")
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)
README = (CHECKOUT / "README.md").read_text()


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
    section = README.split("## The catalogue")[1].split("\n## ")[0]
    assert "\n".join(catalogue.table()) in section, "python tests/docs/catalogue.py"


def test_the_fixes_that_the_table_leaves_out_do_what_another_does():
    for one, other in catalogue.ALIKE:
        for case in CASES.values():
            assert catalogue.expected(case, one) == catalogue.expected(case, other), (case.name, one.name)


def test_what_each_fix_was_worth_is_what_came_of_the_catalogue():
    section = README.split("### What each fix is worth")[1].split("\n## ")[0]
    assert "\n".join(catalogue.worth()) in section, "python tests/docs/catalogue.py"


def test_every_fix_is_weighed():
    section = README.split("### What each fix is worth")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| ([a-z-]*[a-z]) \|", section, re.MULTILINE)) - {"fix"} == set(FIXES) - {"none"}


@pytest.mark.kernel
def test_what_lab_run_prints_is_what_is_shown():
    shown = README.split("    $ lab run\n")[1].split("\n\nThe numbers in brackets")[0]
    verdict = textwrap.dedent("    Linux" + shown.rpartition("\n    Linux")[2])
    width = max(len(line) for line in verdict.splitlines() if line.startswith("│"))
    done = subprocess.run(
        [sys.executable, "-m", "lab", "run", "--no-timeline"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": str(width)},
    )
    if "from 6.1 on" not in done.stdout:
        pytest.skip("the README's kernel ignores late packets, this one does not")
    assert done.stdout.replace(platform.release(), "6.18.44") == f"{verdict}\n"
