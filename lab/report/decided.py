# SPDX-License-Identifier: MIT
"""Which rule decided about a trial's packet, by the kernel's trace: the one to thank, or the one to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.evidence.timeline import Timeline
from lab.evidence.walk import Place, Walk
from lab.report.affected import Remark, listed
from lab.report.tone import Tone
from lab.results.matrix import Matrix
from lab.results.places import called
from lab.results.result import Trial


def decisions(matrix: Matrix) -> Iterator[Remark]:
    """Report which rules decided, each with the trials in which it did; nothing of trials that are not traced."""
    for column in matrix.columns:
        trials: dict[str, list[Trial]] = {}
        for tally in column.report.tallies if column.report else ():
            for words in decided(tally.sample.timeline) if tally.sample else ():
                trials.setdefault(words, []).append(tally.trial)
        kernel = f"{column.label}: " if len(matrix.columns) > 1 else ""
        for words, its in trials.items():
            yield Remark(f"{kernel}{words}: {'; '.join(called(its, matrix.names))}.", Tone.NOTHING)


def decided(timeline: Timeline) -> Iterator[str]:
    """Report of each node that the judged packet came to what decided there, where that is a matter of its rules."""
    nodes = {walk.node for walk in timeline.judged_walks}
    for walk in timeline.judged_walks:
        at = f"at {walk.node} " if len(nodes) > 1 else ""
        if words := _of(walk):
            yield f"{at}{words}"


def _of(walk: Walk) -> str:
    if fate := walk.fate:
        before = f", before {_seen(walk.unseen_drops)}" if walk.unseen_drops else ""
        return f"dropped by {fate.words}{before}"
    if walk.accepted_by:
        by = listed(step.words for step in walk.accepted_by)
        return f"INVALID and passed on by {by}, before {_seen(walk.unseen_drops)}"
    if walk.vanished:
        return walk.vanishing
    if walk.state == "invalid":
        words = f"INVALID and passed on{_last(walk)}: none of the rules that it came to drops such packets"
        return "; ".join(filter(None, (words, _by_stack(walk))))
    return _by_stack(walk)


def _by_stack(walk: Walk) -> str:
    """Return what the node's own stack counted of such packets, behind its rules; empty where it counted none."""
    return f"past the rules {walk.node}'s own stack counted {listed(walk.counted)}" if walk.counted else ""


def _seen(places: Sequence[Place]) -> str:
    """Name rules that did not see the packet."""
    return f"{listed(place.words for place in places)} could see it"


def _last(walk: Walk) -> str:
    """Return what let it go on where that was decided: in the hook of filters that it came to last."""
    steps = [at.decided for at in walk.hooks if at.hook in ("forward", "input") and at.decided]
    return f" by {steps[-1].words}" if steps else ""
