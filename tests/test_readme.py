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
