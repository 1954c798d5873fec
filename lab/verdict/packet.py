# SPDX-License-Identifier: MIT
"""What became of one packet, where no socket takes part that could live or die."""

from __future__ import annotations

from lab.evidence.judgement import Judged, Judgement
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import PacketTimeline, end_of_way, unreachable
from lab.evidence.walk import Step
from lab.verdict.verdict import Outcome, Verdict
from lab.verdict.witnesses import disagreeing_witnesses


def decide(timeline: PacketTimeline) -> Verdict:
    """Decide what became of the judged packet, where no socket takes part that could live or die."""
    if timeline.injected is not None:
        return verdict_of(timeline, *fate(timeline, ()))
    if timeline.refusal is not None:
        return verdict_of(timeline, Outcome.REFUSED, timeline.refused)
    if not timeline.complete:
        return verdict_of(timeline, Outcome.STALLED, ("the handshake was not finished",))
    return verdict_of(timeline, Outcome.CONNECTED, ("the handshake was finished",))


def verdict_of(
    timeline: PacketTimeline, outcome: Outcome, because: tuple[str, ...], more: tuple[str, ...] = ()
) -> Verdict:
    """Return the verdict of an outcome, with what conntrack made of the judged packet.

    :param more: what the sources disagree in besides what is said of the packet.
    """
    judged = timeline.judgement_of(timeline.injected.packet) if timeline.injected else None
    return Verdict(
        outcome,
        judged.judgement if judged else None,
        judged.reason if judged else "",
        (*because, *timeline.counters.told),
        (*disagreeing_witnesses(timeline), *_disagreements(timeline, outcome, judged), *more),
        timeline.findings,
    )


def leaked(timeline: PacketTimeline) -> Sighting | None:
    """Return the judged packet as it came to somebody without the translation that its connection has."""
    arrival = arrival_of(timeline)
    return arrival if arrival is not None and is_untranslated(timeline, arrival) else None


def is_untranslated(timeline: PacketTimeline, arrival: Sighting) -> bool:
    """Check whether a packet of the connection came to somebody otherwise than this one knows the connection."""
    injected, packet = timeline.injected, arrival.packet
    if injected is not None and packet.likeness == injected.packet.likeness:
        receiver = injected.receiver
    else:
        receiver = timeline.client if arrival.host == timeline.client else timeline.server
    if arrival.host != receiver:
        return True
    if receiver == timeline.client:
        pairs = [(packet.source, timeline.target)]
    else:
        pairs = [(packet.source, timeline.peer_address), (packet.destination, timeline.server_address)]
    if packet.tcp is None:  # ICMP has no ports
        return any(one.address != other.address for one, other in pairs)
    return any(one != other for one, other in pairs)


def arrival_of(timeline: PacketTimeline) -> Sighting | None:
    """Return the judged packet as it came to somebody; None where it came to nobody."""
    injected = timeline.injected
    if injected is None:
        return None
    # A node's interfaces show a packet before the node translates it; its socket gets it afterwards.
    ends = {injected.receiver, *timeline.bystanders} - {timeline.node}
    return next(
        (
            sighting
            for sighting in timeline.sightings
            if (sighting.host in ends or sighting.interface == LOCAL)
            and not sighting.outgoing
            and sighting.packet.likeness == injected.packet.likeness
        ),
        None,
    )


def fate(timeline: PacketTimeline, more: tuple[str, ...]) -> tuple[Outcome, tuple[str, ...]]:
    """Return what became of a packet that harmed nobody, and the evidence."""
    arrival = arrival_of(timeline)
    if arrival is None:
        step = _fate_of_judged(timeline)
        outcome = Outcome.LOST if is_uninserted(timeline) else Outcome.DROPPED
        return outcome, (_end_of_way(timeline), *((step.words,) if step else ()), *more)
    where = f"came from {arrival.packet.source.address}"
    return (Outcome.LEAKED if leaked(timeline) else Outcome.DELIVERED), (where, *more)


def _unreachable(timeline: PacketTimeline) -> Sighting | None:
    return unreachable(timeline.injected, timeline.sightings) if timeline.injected else None


def lost_where(timeline: PacketTimeline) -> str | None:
    """Return where the judged packet ended that came to nobody, and by whom; None where there is none."""
    return _end_of_way(timeline) if timeline.injected is not None and arrival_of(timeline) is None else None


def _end_of_way(timeline: PacketTimeline) -> str:
    """Return where the judged packet ended, and by whom: only what was seen and counted there is named."""
    injected, counters = timeline.injected, timeline.counters
    assert injected is not None
    if error := _unreachable(timeline):
        return "; ".join((f"ICMP unreachable from {error.packet.source.address}", *counters.other_drops))
    last = end_of_way(injected.packet, timeline.sightings)
    where = f"ended at {last.host}" if last is not None else "seen nowhere"
    words = [one for one in timeline.judged if one.packet.likeness == injected.packet.likeness]
    if named := _by_rule(timeline):
        return named
    if counters.dropped and any(one.judgement is Judgement.INVALID for one in words):
        return f"{counters.dropped} dropped by rule"
    unrouted = (timeline.unrouted,) if timeline.unrouted else ()
    vanished = [walk.vanishing for walk in timeline.judged_walks if walk.vanished]
    if vanished and not counters.other_drops:
        return "; ".join((vanished[0], *unrouted))
    if unrouted or counters.other_drops:
        return f"{where}: {'; '.join((*unrouted, *counters.other_drops))}"
    if (not words or is_uninserted(timeline)) and counters.moved:
        return f"{where}: conntrack's {', '.join(counters.moved)}"
    return f"{where}, and no rule that counts has dropped it"


def is_uninserted(timeline: PacketTimeline) -> bool:
    """Check whether the judged packet began a flow whose entry conntrack could not insert, and so dropped it.

    That is behind all rules, before the packet leaves (nf_ct_resolve_clash, net/netfilter/nf_conntrack_core.c).
    """
    injected, counters = timeline.injected, timeline.counters
    judged = timeline.judgement_of(injected.packet) if injected is not None else None
    if judged is None or judged.judgement is not Judgement.NEW or not counters.statistics.get("insert_failed"):
        return False
    last = end_of_way(judged.packet, timeline.sightings)
    ended_there = last is not None and last.host == judged.host
    return ended_there and not counters.other_drops and not _fate_of_judged(timeline)


def _by_rule(timeline: PacketTimeline) -> str:
    """Return which rule dropped the judged packet, where the kernel's trace told; empty where it did not."""
    step = _fate_of_judged(timeline)
    return f"dropped by {step.brief}" if step else ""


def _fate_of_judged(timeline: PacketTimeline) -> Step | None:
    return next((walk.fate for walk in timeline.judged_walks if walk.fate), None)


def _disagreements(timeline: PacketTimeline, outcome: Outcome, judged: Judged | None) -> list[str]:
    """Return where the sources contradict each other in what became of the judged packet."""
    injected, counters = timeline.injected, timeline.counters
    if injected is None:
        return []
    found = []
    # What conntrack itself drops, for it has no room for an entry, comes to no rule.
    if injected.nodes and judged is None and not counters.statistics.get("drop"):
        found.append("no node's counting rules saw the judged packet")
    for node, predicted in injected.predictions.items():
        word = timeline.judged_at(node, injected.packet)
        if word is not None and predicted.judgement is not word.judgement:
            found.append(f"by the model of conntrack at {node} {predicted}, and it judged {word.judgement}")
    if judged is None:
        return found
    if judged.host == timeline.node:
        found += _of_translation(timeline, outcome, judged.judgement)
    unnamed = not counters.other_drops and not _unreachable(timeline) and not _by_rule(timeline)
    uncounted = counters.dropped == 0 and unnamed
    if outcome is Outcome.DROPPED and judged.judgement is Judgement.INVALID and uncounted:
        found.append(f"the packet did not reach {injected.receiver}, but no rule counted a drop")
    return found


def _of_translation(timeline: PacketTimeline, outcome: Outcome, judgement: Judgement) -> list[str]:
    """Return where a packet was translated otherwise than what the translating node made of it would have it."""
    translated = timeline.target != timeline.server_address
    if judgement in (Judgement.ACCEPTED, Judgement.IGNORED) and leaked(timeline):
        return [f"conntrack judged the packet {judgement}, and yet it was not translated back"]
    if judgement is Judgement.INVALID and translated and outcome is Outcome.DELIVERED:
        return ["conntrack judged the packet INVALID, and yet it was translated back"]
    return []
