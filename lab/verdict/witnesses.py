# SPDX-License-Identifier: MIT
"""Where the sources of a trial contradict each other, whatever its kind: then no outcome is to be believed."""

from __future__ import annotations

from lab.evidence.timeline import Timeline


def broken(timeline: Timeline) -> list[str]:
    """Return the case's own checks that do not hold, in words."""
    return [
        f"expected {check.words}" + (f", but it is {check.seen}" if check.seen else "")
        for check in timeline.checks
        if not check.holds
    ]


def miscounts(timeline: Timeline) -> list[str]:
    """Return where the log of ct states, its counters, conntrack's own and the rules' differ in INVALID packets."""
    found = []
    logged = sum(judged.state == "invalid" for judged in timeline.judged)
    counted = timeline.counters.states.get("invalid", 0)
    if logged != counted:
        found.append(f"the counting rules logged {logged} INVALID packets and counted {counted}")
    by_conntrack = sum(judged.counts_as_invalid for judged in timeline.judged)
    statistics = timeline.counters.statistics.get("invalid", 0)
    if by_conntrack != statistics:
        found.append(
            f"the counting rules logged {by_conntrack} INVALID packets, conntrack's statistics say {statistics}"
        )
    if (timeline.counters.dropped or 0) > counted:
        found.append(f"rules dropped {timeline.counters.dropped} INVALID packets, {counted} were counted")
    return found


def disagreeing_witnesses(timeline: Timeline) -> list[str]:
    """Return what speaks against believing a timeline, whatever its kind: faults, checks, counts that differ."""
    return [*timeline.faults, *broken(timeline), *miscounts(timeline)]
