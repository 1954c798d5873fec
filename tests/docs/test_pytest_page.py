"""docs/pytest.md and docs/benchmarks.md name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS
from tests.support.command import run_pytest
from tests.support.pages import CHECKOUT, DOCS, code

PAGE = (DOCS / "pytest.md").read_text()


def table(heading):
    """Return what stands in the first column of a section's table, by its code words."""
    section = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[0]
    return {
        word for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for word in re.findall(r"`([^`]+)`", row)
    }


def test_the_plugins_fixtures_marks_and_options_are_those_that_are_told(pytester):
    fixtures = run_pytest(pytester.path, "--fixtures", "-q").outlines
    assert table("Fixtures") == set(re.findall(r"^(lab_\w+) -- ", "\n".join(fixtures), re.MULTILINE))

    known = "\n".join(run_pytest(pytester.path, "--markers").outlines)
    # What makes namespaces with a fixture has that mark by itself.
    assert table("Marks") == set(re.findall(r"^@pytest\.mark\.(lab_\w+)", known, re.MULTILINE)) - {"lab_kernel"}

    helped = "\n".join(run_pytest(pytester.path, "--help").outlines)
    options = set(re.findall(r"^ +(--lab-[a-z-]+)", helped, re.MULTILINE))
    assert table("Options") == options - {f"--lab-{SETTINGS[field].option}" for field in TOPOLOGYS}
    assert set(re.findall(r"--lab-[a-z-]+", PAGE)) <= options


@pytest.mark.lab_kernel
def test_the_tests_that_are_shown_pass(pytester):
    needing = "# needs: containernetworking-plugins"
    shown = code(DOCS / "pytest.md", "python")
    has_portmap = Path("/usr/lib/cni/portmap").exists()
    run = [text for text in shown if has_portmap or not text.startswith(needing)]
    assert len(shown) - 1 <= len(run)
    for number, text in enumerate(run):
        (pytester.path / f"test_block_{number}.py").write_text(text)
    result = run_pytest(pytester.path)
    result.assert_outcomes(passed=sum(text.count("def test_") + text.count("parametrize") for text in run))
    if not has_portmap:
        pytest.skip("the others pass; one wants /usr/lib/cni/portmap: apt-get install containernetworking-plugins")


def test_every_benchmark_is_named():
    section = (DOCS / "benchmarks.md").read_text()
    told = set(re.findall(r"`(?:[\w./ ]*/)?(\w+\.py)`", section))
    there = {path.name: path.read_text() for path in (CHECKOUT / "tests/benchmarks").glob("*.py")}
    assert told == {name for name, text in there.items() if "__main__" in text}
