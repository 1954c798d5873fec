# SPDX-License-Identifier: MIT
"""What changed from one file of results to another: the same trials, run at another time or place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.results.gathered import columns_of
from lab.results.matrix import Column
from lab.results.places import called, names
from lab.results.result import Tally, Trial
from lab.results.saved import Found


def changes(before: tuple[str, Found], after: tuple[str, Found]) -> Iterator[str]:
    """Yield what changed, a sentence each; nothing where all came out the same.

    :param before: what to call the first results, and these.
    """
    (first, old), (second, new) = before, after
    pairs, alone = _paired(columns_of(old), columns_of(new))
    for one, other in pairs:
        yield from _of_kernels(one, other, (first, second), several=len(pairs) > 1)
    for name, columns in zip((first, second), alone, strict=True):
        for column in columns:
            yield f"only in {name}: Linux {column.name}"


def same(before: Found, after: Found) -> int:
    """Count the trials that came out the same."""
    pairs, _alone = _paired(columns_of(before), columns_of(after))
    return sum(
        _came(tally) == _came(now[trial])
        for one, other in pairs
        for now in (_tallies(other),)
        for trial, tally in _tallies(one).items()
        if trial in now
    )


def _paired(
    old: Sequence[Column], new: Sequence[Column]
) -> tuple[list[tuple[Column, Column]], tuple[list[Column], list[Column]]]:
    """Pair kernels by what they are called; where there is one each, these two, whatever they are."""
    if len(old) == len(new) == 1:
        return [(old[0], new[0])], ([], [])
    by_label = {column.label: column for column in new}
    pairs = [(column, by_label[column.label]) for column in old if column.label in by_label]
    taken = {column.label for column, _other in pairs}
    return pairs, ([one for one in old if one.label not in taken], [one for one in new if one.label not in taken])


def _of_kernels(one: Column, other: Column, files: tuple[str, str], *, several: bool) -> Iterator[str]:
    where = f"{one.label}: " if several else ""
    failures = one.failure, other.failure
    if failures[0] != failures[1]:
        yield f"{where}was {failures[0] or 'tried'}, is {failures[1] or 'tried'}"
    if one.report is None or other.report is None:
        return
    for family, way in one.report.behaviours.items():
        now = other.report.behaviours.get(family)
        if now is not None and now is not way:
            yield f"{where}{family}: was: {way.words}; is: {now.words}"
    old, new = _tallies(one), _tallies(other)
    named = names({**old, **new})
    found: dict[tuple[str, str], list[Trial]] = {}
    for trial in old.keys() & new.keys():
        was, is_ = _came(old[trial]), _came(new[trial])
        if was != is_:
            found.setdefault((was, is_), []).append(trial)
    order = list(old)
    for (was, is_), trials in sorted(found.items(), key=lambda item: min(map(order.index, item[1]))):
        its = "; ".join(called(sorted(trials, key=order.index), named))
        yield f"{where}{its}: was {was}, is {is_}"
    for name, here, there in ((files[0], old, new), (files[1], new, old)):
        if its := "; ".join(called((trial for trial in here if trial not in there), named)):
            yield f"{where}only in {name}: {its}"


def _tallies(column: Column) -> dict[Trial, Tally]:
    return {tally.trial: tally for tally in column.report.tallies} if column.report else {}


def _came(tally: Tally) -> str:
    """Return what came of a trial, without what may be another number each time."""
    words = []
    if tally.sample is not None:
        verdict = tally.sample.verdict
        outcomes = " or ".join(sorted(outcome for outcome, _count in tally.outcomes)) or verdict.outcome
        words = [verdict.judgement or "not judged", outcomes, *verdict.findings]
        words += ["not as expected"] if tally.as_expected < tally.runs else []
    words += [f"not run ({tally.failure})"] if tally.failure else []
    words += [f"not here ({tally.missing})"] if tally.missing else []
    return ", ".join(words)
