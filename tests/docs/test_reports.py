"""The public reports of the cookbook: each block does what the page says, and the words that were seen are there."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from tests.support.pages import CHECKOUT, DOCS, Report, command, reports

REPORTS = list(reports(DOCS / "cookbook.md"))
FILES = {name: text for one in REPORTS for name, text in one.files.items()}
RULES = CHECKOUT / "tests" / "rules"


def test_the_section_is_found_and_each_report_says_what_is_seen():
    assert len(REPORTS) > 25
    for one in REPORTS:
        assert bool(one.lines) == bool(one.seen), one.title
        assert all(len(text.splitlines()) <= 20 for text in one.files.values()), one.title


@pytest.mark.lab_kernel
@pytest.mark.parametrize("report", [one for one in REPORTS if one.lines], ids=lambda one: one.title[:50])
def test_a_report_is_played_and_what_is_seen_is_there(report: Report, tmp_path, monkeypatch):
    from lab.cli import app

    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name, its in {"ruleset.json": "nft-ruleset.json", "nft-objects.yaml": "nft-objects.yaml"}.items():
        (tmp_path / name).write_bytes((RULES / its).read_bytes())
    told = ""
    for line in report.lines:
        shown = command(line)
        assert shown is not None, line
        done = CliRunner().invoke(app, shown.words, env={"COLUMNS": "200"})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code in (0, 1), done.output
        if shown.output:
            (tmp_path / shown.output).write_text(done.stdout)
        told += done.stdout
    flat = re.sub(r"\s+", " ", told)
    assert [words for words in report.seen if words not in flat] == []
