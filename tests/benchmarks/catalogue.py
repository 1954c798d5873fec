"""What the whole catalogue costs: every case that is not slow by every fix, and the slow ones each by itself.

Ratios are to the headline's trial in the same run, so that a slow machine shows in none of them.

python tests/benchmarks/catalogue.py [ROUNDS] [--slow]
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys

from measure import machine, milliseconds

from lab.cases import CASES, HEADLINE, Case
from lab.fixes import DEFAULT_FIXES, FIXES, Fix
from lab.netns import userns
from lab.trial import batch, runner
from lab.trial.probe import ask
from lab.vocabulary import Family

BAR = 30  # seconds, for all that is not slow


def measured(cases: list[Case], fixes: list[Fix]) -> dict[str, list[float]]:
    """Try every case with every fix once; return the trials' milliseconds by case."""
    answer = asyncio.run(ask(Family.IPV4))
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    with asyncio.Runner() as loop:
        for setting in batch.select(cases, fixes, None, Family.IPV4, (None, None, None)).settings:
            times[setting.case.name].append(milliseconds(lambda s=setting: loop.run(runner.run(s, answer))))
    return times


def main(rounds: int, *, slow: bool) -> None:
    userns.ensure()
    print(machine())
    quick = [case for case in CASES.values() if not case.slow]
    for number in range(rounds):
        times = measured(quick, list(FIXES.values()))
        total = sum(map(sum, times.values())) / 1e3
        print(f"round {number + 1}: {len(quick)} cases by {len(FIXES)} fixes in {total:.1f} s (bar {BAR} s)")
    headline = statistics.median(times[HEADLINE.name])
    print(f"  {HEADLINE.name}: {headline:.1f} ms; those that take longest, as multiples of it:")
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name in sorted(medians, key=medians.__getitem__, reverse=True)[:8]:
        print(f"    {name:36} {medians[name] / headline:6.1f}")
    if slow:
        for name, taken in measured([case for case in CASES.values() if case.slow], list(DEFAULT_FIXES)).items():
            print(f"  {name:36} {statistics.median(taken) / 1e3:6.1f} s a trial")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        words = sys.argv[1:]
        main(int(next((word for word in words if word.isdigit()), 1)), slow="--slow" in words)
