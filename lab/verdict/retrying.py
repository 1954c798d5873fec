# SPDX-License-Identifier: MIT
"""What became of a trial whose client begins again, and what it cost."""

from __future__ import annotations

from dataclasses import replace

from lab.evidence.packet import SYN
from lab.evidence.timeline import RetryingTimeline
from lab.verdict import connection
from lab.verdict.verdict import Outcome, Verdict


def decide(timeline: RetryingTimeline) -> Verdict:
    """Decide what became of a trial whose client begins again, and what it cost."""
    verdict = connection.decide(timeline)
    if not timeline.tries:
        return verdict
    last = timeline.tries[-1]
    whole = last.error is None and last.received == timeline.wanted
    retried = verdict.outcome is Outcome.RESET and len(timeline.tries) > 1 and whole
    wrong = tuple("a client received bytes that were not sent" for one in timeline.tries if not one.intact)
    return replace(
        verdict,
        outcome=Outcome.RETRIED if retried else verdict.outcome,
        because=(*cost(timeline), *verdict.because) if retried else (*verdict.because, *cost(timeline)),
        disagreements=verdict.disagreements + wrong,
    )


def cost(timeline: RetryingTimeline) -> tuple[str, ...]:
    """Return what all tries have cost, in figures that no machine's speed is in."""
    sent, count = sum(one.sent for one in timeline.tries), len(timeline.tries)
    return (
        f"{sent:,} bytes sent for {timeline.wanted:,}",
        f"{round_trips(timeline)} round trips until the last came",
        f"{count} connections" if count > 1 else "1 connection",
        *(f"{one.error} after {one.received:,} bytes" for one in timeline.tries if one.error),
    )


def round_trips(timeline: RetryingTimeline) -> int:
    """Return how often the client had to wait for an answer before it had the last byte.

    Each SYN and each segment with data that it sent until then is a question; one that was sent again counts once.
    """
    arrivals = [
        sighting.time
        for sighting in timeline.sightings
        if sighting.host == timeline.client
        and not sighting.outgoing
        and sighting.packet.source == timeline.target
        and sighting.packet.tcp is not None
        and sighting.packet.payload_length
    ]
    questions = {
        (sighting.packet.source, sighting.packet.tcp.sequence)
        for sighting in timeline.sightings
        if sighting.host == timeline.client
        and sighting.outgoing
        and sighting.packet.destination == timeline.target
        and sighting.packet.tcp is not None
        and (sighting.packet.tcp.flags & SYN or sighting.packet.payload_length)
        and sighting.time < max(arrivals, default=0)
    }
    return len(questions)
