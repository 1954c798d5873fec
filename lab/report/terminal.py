# SPDX-License-Identifier: MIT
"""Verdicts, case by fix, as tables for a terminal, made from results alone."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lab.report.tone import style_of
from lab.results.places import names
from lab.results.result import Result, Tally
from lab.tones import HARMLESS, OOPS, QUIET

_WIDE: Final = 4  # fixes; with more, a cell has room for two words only
_BRIEF: Final = 11  # columns of a fix's name that can be broken


def heading(result: Result) -> Text:
    """Return the line above a timeline: what was tried, and what became of it."""
    service = f", Service {result.trial.service}" if result.trial.service else ""
    text = Text(f"{result.trial.case}, fix {result.trial.fix}{service}: ", "bold")
    text.append(result.verdict.outcome, style_of(result.verdict.outcome))
    return text


def tables(tallies: Sequence[Tally], width: int, *, brief: bool = False) -> Iterator[Table]:
    """Yield the verdicts, case by fix: with what decided each while fixes are few, else in as few words as can be.

    :param width: of the terminal, in columns.
    :param brief: in as few words as can be in any case.
    """
    fixes = list(dict.fromkeys(tally.trial.fix for tally in tallies))
    if len(fixes) <= _WIDE and not brief:
        yield _table(tallies, fixes)
    else:
        yield from _brief_tables(tallies, fixes, width)


def _by_name(tallies: Sequence[Tally]) -> dict[tuple[str, str], Tally]:
    """Return what came of each case with each fix; a case that was tried in several places has a name for each."""
    named = names(tally.trial for tally in tallies)
    return {(named[tally.trial], tally.trial.fix): tally for tally in tallies}


def _table(tallies: Sequence[Tally], fixes: Sequence[str]) -> Table:
    cells = _by_name(tallies)
    drawn = Table(show_lines=True, highlight=False)
    drawn.add_column("case", no_wrap=True)
    for fix in fixes:
        drawn.add_column(f"fix: {fix}", overflow="fold")
    for case in dict.fromkeys(name for name, _fix in cells):
        drawn.add_row(case, *(_cell(cells.get((case, fix))) for fix in fixes))
    return drawn


def _brief_tables(tallies: Sequence[Tally], fixes: Sequence[str], width: int) -> Iterator[Table]:
    """Yield tables with a column for all fixes that came out alike, as many side by side as the terminal has room for.

    What conntrack judged is told once, as the first fix has it; other cells name theirs where it is another one.
    """
    cells = _by_name(tallies)
    cases = list(dict.fromkeys(name for name, _fix in cells))
    words = [_word(cells.get((case, fixes[0]))) for case in cases]
    alike: dict[tuple[str, ...], list[str]] = {}
    columns: list[list[Text]] = []
    for fix in fixes:
        column = [_cell(cells.get((case, fix)), word) for case, word in zip(cases, words, strict=True)]
        key = tuple(cell.plain for cell in column)
        if key not in alike:
            columns.append(column)
        alike.setdefault(key, []).append(fix)
    headings = [
        (Text("case"), [Text(textwrap.fill(case, width // 3)) for case in cases]),
        (Text("judged by\nconntrack"), [Text(word, QUIET) for word in words]),
    ]
    parts = list(zip((_heading(names) for names in alike.values()), columns, strict=True))
    while parts:
        taken = itertools.accumulate(map(_width, parts), initial=sum(map(_width, headings)))
        room = max(1, sum(columns <= width for columns in taken) - 1)
        drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, highlight=False)
        shown, parts = [*headings, *parts[:room]], parts[room:]
        for heading, _cells in shown:
            drawn.add_column(heading, vertical="top", no_wrap=True)
        for index in range(len(cases)):
            drawn.add_row(*(column[index] for _heading, column in shown))
        yield drawn


def _heading(fixes: Sequence[str]) -> Text:
    """Name the fixes of one column, below each other, the long ones in two lines."""
    names = (textwrap.fill(fix, _BRIEF, break_long_words=False) for fix in fixes)
    return Text(",\n".join(names))


def _width(part: tuple[Text, list[Text]]) -> int:
    heading, cells = part
    return 2 + max(len(line) for text in (heading, *cells) for line in text.plain.splitlines())


def _word(tally: Tally | None) -> str:
    """Return what conntrack made of the packet; a dash where there was nothing to judge."""
    result = tally.sample if tally else None
    return str(result.verdict.judgement or "-") if result else "-"


def _after(text: Text, tally: Tally, words: str) -> str:
    return f"{chr(10) if text else ''}{'then ' if tally.runs else ''}{words}"


def _cell(tally: Tally | None, word: str | None = None) -> Text:
    """Return what came of a trial, and what decided it.

    :param word: conntrack's, where it was told already; then only another one is told here.
    """
    if tally is None:
        return Text("-")
    text = Text()
    result = tally.sample
    if result is not None:
        outcome = result.verdict.outcome
        text.append(outcome, style_of(outcome))
        if tally.runs > 1 and not (word and tally.good):
            text.append(f", {tally.as_expected} of {tally.runs} as expected", "" if tally.good else OOPS)
        if word is None:
            text.append(f"\n{result.verdict.decided_by}", QUIET)
        elif _word(tally) not in ("-", word):
            text.append(f"\n{_word(tally)}", QUIET)
        if not result.as_expected:
            text.append(f"\nNOT AS EXPECTED\n{(result.surprise or 'sources disagree').replace('; ', chr(10))}", OOPS)
            for disagreement in result.verdict.disagreements:
                text.append(f"\n{disagreement}", OOPS)
    if tally.failure:
        text.append(_after(text, tally, "NOT RUN"), OOPS)
    if tally.missing:
        text.append(_after(text, tally, "not here"), HARMLESS)
    return text
