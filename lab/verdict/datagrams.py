# SPDX-License-Identifier: MIT
"""What became of questions and answers by datagram."""

from __future__ import annotations

from lab.evidence.judgement import Judged
from lab.evidence.timeline import DatagramsTimeline, Exchange
from lab.verdict.verdict import Outcome, Verdict
from lab.verdict.witnesses import disagreeing_witnesses


def decide(timeline: DatagramsTimeline) -> Verdict:
    """Decide what became of the questions: the first that went wrong decides, the last where all went well."""
    wrong = (exchange for exchange in timeline.exchanges if not exchange.answered)
    return _decide(timeline, next(wrong, None) or _last(timeline))


def decide_by_the_last(timeline: DatagramsTimeline) -> Verdict:
    """Decide what became of the last question: those before it are there to be remembered by conntrack."""
    return _decide(timeline, _last(timeline))


def _last(timeline: DatagramsTimeline) -> Exchange | None:
    return timeline.exchanges[-1] if timeline.exchanges else None


def _decide(timeline: DatagramsTimeline, decisive: Exchange | None) -> Verdict:
    if decisive is None:
        faults = tuple(disagreeing_witnesses(timeline))
        return Verdict(Outcome.LOST, None, "", ("nobody asked",), faults, timeline.findings)
    outcome, because = _outcome(timeline, decisive)
    others = [_outcome(timeline, exchange)[1] for exchange in timeline.exchanges if exchange is not decisive]
    if decisive.reached:  # where it reached nobody they are told already
        others += timeline.counters.told
    judged = _judged(timeline, decisive)
    found = disagreeing_witnesses(timeline)
    if judged is None and not timeline.counters.statistics.get("drop"):
        found.append("the node's counting rules never saw the question")
    if any(exchange.answered and exchange.answer is None for exchange in timeline.exchanges):
        found.append("a socket took an answer that its host's capture did not see")
    return Verdict(
        outcome,
        judged.judgement if judged else None,
        judged.reason if judged else "",
        (because, *others),
        tuple(found),
        timeline.findings,
    )


def _judged(timeline: DatagramsTimeline, exchange: Exchange) -> Judged | None:
    # Lengths and ports tell: in IPv6 datagrams have no number.
    return next((judged for judged in timeline.judged if judged.packet == exchange.question), None)


def _outcome(timeline: DatagramsTimeline, exchange: Exchange) -> tuple[Outcome, str]:
    if exchange.answered:
        return Outcome.DELIVERED, f"answered by {', '.join(exchange.reached)}"
    if exchange.error is not None:
        return Outcome.REFUSED, exchange.error
    if exchange.answer is not None and exchange.answer.source != exchange.target:
        return Outcome.LEAKED, f"answer came from {exchange.answer.source.address}"
    if exchange.reached:
        return Outcome.LOST, f"no answer, reached {', '.join(exchange.reached)}"
    why = (exchange.unrouted, *timeline.counters.other_drops, *timeline.counters.moved)
    return Outcome.LOST, ", ".join(("reached no server", *filter(None, why)))
