"""docs/pytest.md and docs/benchmarks.md name what there is."""

from __future__ import annotations

import re

from tests.support.command import run_pytest
from tests.support.pages import CHECKOUT, DOCS

PAGE = (DOCS / "pytest.md").read_text()


def test_the_plugins_marks_and_options_are_those_that_are_told(pytester):
    marks = set(re.findall(r"`(\w+)(?:\(\.\.\.\))?`", re.findall(r"^The marks (.*) skip a test", PAGE, re.M)[0]))
    assert marks == {"lab_needs_root", "lab_needs_tool", "lab_kernel_feature"}
    known = run_pytest(pytester.path, "--markers").outlines
    assert marks <= set(re.findall(r"^@pytest\.mark\.(\w+)", "\n".join(known), re.M))
    options = set(re.findall(r"`(--lab-[a-z-]+)`", PAGE))
    assert options == {"--lab-keep", "--lab-shell-on-failure", "--lab-proxy-mode"}
    helped = "\n".join(run_pytest(pytester.path, "--help").outlines)
    assert options <= set(re.findall(r"--lab-[a-z-]+", helped))


def test_every_benchmark_is_named():
    section = (DOCS / "benchmarks.md").read_text()
    told = set(re.findall(r"`(?:[\w./ ]*/)?(\w+\.py)`", section))
    there = {path.name: path.read_text() for path in (CHECKOUT / "tests/benchmarks").glob("*.py")}
    assert told == {name for name, text in there.items() if "__main__" in text}
