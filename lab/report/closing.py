# SPDX-License-Identifier: MIT
"""What a matrix means, in sentences: whom the bug hits, what differs between kernels, and what was not found out.

A report is a matrix of one kernel, and told by the same sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.report import own_node
from lab.report.affected import Remark, answers, listed, regression
from lab.report.decided import decisions
from lab.report.tone import Tone
from lab.results.differences import alike, differences
from lab.results.matrix import Column, Matrix
from lab.results.places import called, tried
from lab.results.result import Tally, Trial
from lab.vocabulary import Behaviour, Family

__all__ = ["Remark", "afterwards", "preface", "remarks"]


def preface(matrix: Matrix) -> Iterator[str]:
    """Report above the table what was judged: the kernels by their ways, and the nodes, which the lab makes."""
    ways: dict[tuple[Family, Behaviour], list[str]] = {}
    for column in matrix.columns:
        for way in column.report.behaviours.items() if column.report else ():
            if column.name not in ways.setdefault(way, []):
                ways[way].append(column.name)
    for (family, behaviour), kernels in ways.items():
        yield f"Linux {listed(kernels)}, {family}: {behaviour.words}."
    trials = [row.trial for row in matrix.rows]
    if places := list(tried(one for one in trials if not one.given)):
        yield f"Judged: nodes that the lab made, of {', and of '.join(places)}."
    if places := list(tried(one for one in trials if one.given)):
        yield f"Judged: a node with the rules of {', and of '.join(places)}."
    yield from dict.fromkeys(note for column in matrix.columns if column.report for note in column.report.notes)


def remarks(matrix: Matrix) -> Iterator[Remark]:
    """Report what a matrix means: the answer first, then what differs, then what is missing."""
    given = [column.report for column in matrix.columns if column.report and any(map(_is_given, column.report.tallies))]
    if given:
        for report in given:
            yield from own_node.answer(report)
            yield from own_node.effects(report)
            yield from own_node.remedies(report)
    else:
        yield from answers(matrix)
    yield from afterwards(matrix)


def afterwards(matrix: Matrix) -> Iterator[Remark]:
    """Report what is to be said behind the answer."""
    yield from decisions(matrix)
    yield from regression(matrix)
    yield from _differences(matrix)
    for column in matrix.columns:
        yield from _failed(matrix, column)
    yield _last_words(matrix)


def _differences(matrix: Matrix) -> Iterator[Remark]:
    found = list(differences(matrix))
    for difference in found:
        yield Remark(difference.sentence, Tone.NOTHING)
    if found and not matrix.by_program:
        text = "Where two kernels differ, the change came somewhere between their versions; where, nobody looked for."
        yield Remark(text, Tone.NOTHING)
    ran = sum(column.report is not None for column in matrix.columns)
    if ran == len(matrix.columns) > 1:
        on_all = f"{'with' if matrix.by_program else 'on'} all {ran} {matrix.kinds}"
        yield Remark(f"{alike(matrix)} of {len(matrix.rows)} trials gave the same {on_all}.", Tone.NOTHING)


def _failed(matrix: Matrix, column: Column) -> Iterator[Remark]:
    """Name what was not as expected on a kernel, and what was not run."""
    if column.report is None:
        release = f", Linux {column.release}," if column.release else ""
        yield Remark(f"{column.label}{release} gave no results: {column.failure}", Tone.HARMFUL, column.console)
        return
    kernel = f"{column.label}: " if len(matrix.columns) > 1 else ""
    reasons: dict[tuple[str, Tone], list[Trial]] = {}
    for tally in column.report.tallies:
        if tally.runs > tally.as_expected:
            reasons.setdefault((f"not as expected: {{}}: {_unexpected(tally)}", Tone.HARMFUL), []).append(tally.trial)
        if tally.missing:
            reasons.setdefault((f"not run: {{}}: {tally.missing}", Tone.HARMLESS), []).append(tally.trial)
        elif tally.failure:
            reasons.setdefault((f"not run: {{}}: {tally.failure}", Tone.HARMFUL), []).append(tally.trial)
    for (words, tone), trials in reasons.items():
        yield Remark(kernel + words.replace("{}", "; ".join(called(trials, matrix.names)), 1), tone)


def _unexpected(tally: Tally) -> str:
    """Return what was not as expected: expected and seen, or who says otherwise; and how often."""
    sample = tally.sample
    words = "" if sample is None else sample.surprise or "; ".join(sample.verdict.disagreements)
    return words + (f" ({tally.runs - tally.as_expected:,} of {tally.runs:,} runs)" if tally.runs > 1 else "")


def _last_words(matrix: Matrix) -> Remark:
    reports = [column.report for column in matrix.columns]
    whose = "their" if len(reports) > 1 else "this"
    tallies = [tally for report in reports if report for tally in report.tallies]
    had = list(filter(_was_had, tallies))
    unknown = [tally for tally in had if tally.sample is not None and tally.sample.expected is None]
    known = [tally for tally in had if tally not in unknown]
    without = sum(report is None for report in reports)
    idle = sum(report is not None and not any(map(_was_had, report.tallies)) for report in reports)
    parts = []
    wrong = sum(not tally.good for tally in known)
    if wrong:
        parts.append(f"{wrong} of {len(known)} trials did not give what {whose} kernel is expected to give")
    elif known:
        parts.append(f"{len(known)} of {len(known)} trials gave what {whose} kernel is expected to give")
    if unknown:
        parts.append(_of_unknown(unknown))
    if without:
        parts.append(f"{without} of {len(reports)} kernels gave no results")
    if idle and len(reports) == 1:
        parts.append("NOTHING WAS TRIED: what it takes is missing")
    elif idle:
        parts.append(f"NOTHING WAS TRIED on {idle} of {len(reports)} kernels: they lack what it takes")
    return Remark(f"{', and '.join(parts)}.", Tone.FINE if matrix.good and not idle else Tone.HARMFUL)


def _of_unknown(tallies: Sequence[Tally]) -> str:
    """Report trials of which nothing is expected: each was judged by what came of it."""
    count = "1 trial was judged by what came of it" if len(tallies) == 1 else None
    count = f"{count or f'{len(tallies)} trials were judged by what came of them'} alone"
    wrong = sum(not tally.good for tally in tallies)
    doubt = f", and of {wrong} the sources disagree or the end was not reached" if wrong else ""
    return f"{count}, for rules that are not the lab's{doubt}"


def _is_given(tally: Tally) -> bool:
    return bool(tally.trial.given)


def _was_had(tally: Tally) -> bool:
    return tally.runs > 0 or not tally.missing
