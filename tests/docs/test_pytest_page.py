"""docs/pytest.md and docs/benchmarks.md name what there is."""

from __future__ import annotations

import re

from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS
from tests.support.command import run_pytest
from tests.support.pages import CHECKOUT, DOCS

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


def test_every_benchmark_is_named():
    section = (DOCS / "benchmarks.md").read_text()
    told = set(re.findall(r"`(?:[\w./ ]*/)?(\w+\.py)`", section))
    there = {path.name: path.read_text() for path in (CHECKOUT / "tests/benchmarks").glob("*.py")}
    assert told == {name for name, text in there.items() if "__main__" in text}
