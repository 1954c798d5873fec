"""docs/catalogue.md is what `lab list --md` prints, and docs/fixes.md weighs every fix."""

from __future__ import annotations

import re

from lab.cases import CASES
from lab.cli.catalogue_markdown import ALIKE, expected
from lab.fixes import FIXES
from lab.vocabulary import Behaviour
from tests.support.command import lab
from tests.support.pages import DOCS


def test_the_tables_are_what_is_expected():
    printed = lab("list", "--md").stdout
    assert "| beyond-window | INVALID | **reset** | dropped | delivered |" in printed
    assert f"-->\n\n{printed}\n<!--" in (DOCS / "catalogue.md").read_text(), "python docs/make/catalogue.py"


def test_one_form_a_call():
    done = lab("list", "--md", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--json and --md" in done.stderr


def test_the_fixes_that_the_table_leaves_out_do_what_another_does():
    for one, other in ALIKE:
        for case in CASES.values():
            for behaviour in Behaviour:
                assert expected(case, one, behaviour) == expected(case, other, behaviour), (case.name, one.name)


def test_every_fix_is_weighed():
    [table] = re.findall(r"^\| fix \| cures .*\n((?:\|.*\n)+)", (DOCS / "fixes.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"^\| ([a-z-]*[a-z]) \|", table, re.MULTILINE)) == set(FIXES) - {"none"}
