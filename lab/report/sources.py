# SPDX-License-Identifier: MIT
"""What each source of a trial's evidence said, apart from the packets themselves."""

from __future__ import annotations

from collections.abc import Iterator

from lab.evidence.timeline import PacketTimeline
from lab.report.ending import about, ending
from lab.results.result import Result


def sources(result: Result) -> Iterator[tuple[str, str]]:
    """Yield who speaks, and what it says."""
    timeline, verdict = result.timeline, result.verdict
    *ends, left = (line.plain for line in ending(timeline))
    if ends:
        yield "the ends", "; ".join(ends)
    yield "the node", left
    counters = timeline.counters
    states = ", ".join(f"{state} {count}" for state, count in counters.states.items() if count)
    if states:
        yield "packets by ctstate", states
    counted = ", ".join(f"{name} {count:,}" for name, count in counters.statistics.items() if count)
    yield "conntrack -S", counted or "nothing but zeros"
    if verdict.reason:
        yield "the kernel's log", verdict.reason
    if counters.dropped is not None:
        yield "the INVALID drop", f"{counters.dropped} {'packet' if counters.dropped == 1 else 'packets'}"
    for rule in counters.other_drops:
        yield "another rule", rule
    if isinstance(timeline, PacketTimeline) and timeline.injected is not None:
        yield "the packet", about(timeline.injected)
    for check in timeline.checks:
        yield "the case", f"{check.words}: {'so it is' if check.holds else check.seen or 'it is not so'}"
    for finding in timeline.findings:
        yield "found", finding
    for words in (*timeline.faults, *filter(None, (timeline.disturbed,))):
        yield "the instruments", words
    for words in verdict.disagreements:
        yield "they disagree", words
