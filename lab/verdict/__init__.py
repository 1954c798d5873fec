"""What became of a trial, decided from its timeline alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import ACK, FIN, RST, SYN, TCP
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Timeline, end_of_way, unreachable


class Outcome(StrEnum):
    """What became of the connection and of the packet that was to disturb it."""

    RESET = "reset"  # the sender's socket was reset by the answer to a packet that leaked
    DROPPED = "dropped"  # the packet reached nobody, and the connection lives
    # The packet reached its receiver, translated as it has to be, and the connection lives; by datagram: all is
    # answered from the address that was asked.
    DELIVERED = "delivered"
    CONNECTED = "connected"  # there was no packet to judge, and the connection did all that it should
    # The packet reached somebody without its translation, and the connection lives all the same; by datagram: an answer
    # did, and the client's socket did not take it.
    LEAKED = "leaked"
    RETRIED = "retried"  # reset, but the application began again on another connection, and nobody noticed
    KILLED = "killed"  # the packet itself ended the connection, as a packet of its sender's would; nothing leaked
    REFUSED = "refused"  # there was no connection at all, or a datagram was refused
    STALLED = "stalled"  # the connection, or its handshake, neither went on nor ended
    DUPLICATED = "duplicated"  # a copy of a datagram came to its receiver as well
    LOST = "lost"  # the connection ended with an error that no packet explains; a datagram or its answer got lost


@dataclass(frozen=True)
class Verdict:
    """The outcome, and what decided it.

    :param judgement: what conntrack made of the injected packet; None where it never came to the node.
    :param reason: the kernel's own words about it; empty where it had none.
    :param because: the evidence, a sentence each.
    :param disagreements: where two witnesses contradict each other, or the case's own checks do not hold; not empty
        means: do not believe the outcome.
    :param findings: what kernels may differ in, in words that are the same where they do not.
    """

    outcome: Outcome
    judgement: Judgement | None
    reason: str
    because: tuple[str, ...]
    disagreements: tuple[str, ...]
    findings: tuple[str, ...] = ()

    @property
    def decided_by(self) -> str:
        """What decided it, in a few words for a table."""
        return f"{self.judgement or 'not judged'}, {self.because[0]}"


def leaked(timeline: Timeline) -> Sighting | None:
    """Return the judged packet as it came to somebody without the translation that its connection has."""
    arrival = _arrival(timeline)
    return arrival if arrival is not None and _is_untranslated(timeline, arrival) else None


def _is_untranslated(timeline: Timeline, arrival: Sighting) -> bool:
    """Tell whether a packet of the connection came to somebody otherwise than this one knows the connection."""
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


def _leak_before(timeline: Timeline, reset: Sighting) -> Sighting | None:
    """Return what leaked, and was answered by this reset: it has the number that the leaked one acknowledges.

    That is how a stack resets what it has no connection for (RFC 9293, 3.5.2, group 1).
    """
    assert reset.packet.tcp is not None
    victim = _sender(timeline)
    at_server = victim == timeline.server
    own = (timeline.server_address,) if at_server else (timeline.client_address, timeline.peer_address)
    ends = {timeline.client, timeline.server, *timeline.bystanders} - {victim}
    for sighting in timeline.sightings:
        tcp = sighting.packet.tcp
        at_end = (sighting.host in ends and sighting.host != timeline.node) or sighting.interface == LOCAL
        if tcp is None or sighting.outgoing or not at_end or sighting.time > reset.time:
            continue
        from_victim = sighting.packet.source in own and _is_untranslated(timeline, sighting)
        if from_victim and tcp.flags & ACK and tcp.acknowledgement == reset.packet.tcp.sequence:
            return sighting
    return None


def resets(timeline: Timeline) -> tuple[Sighting, ...]:
    """Return the resets that came to the sender of the injected packet from whom it was for, as they came."""
    victim = _sender(timeline)
    source = timeline.peer_address if victim == timeline.server else timeline.target
    return tuple(
        sighting
        for sighting in timeline.sightings
        if sighting.host == victim
        and not sighting.outgoing
        and sighting.packet.tcp is not None
        and sighting.packet.tcp.flags & RST
        and sighting.packet.source == source
    )


def _sender(timeline: Timeline) -> str:
    return timeline.injected.host if timeline.injected else timeline.server


def _is_exact(timeline: Timeline, reset: Sighting) -> bool:
    """Tell whether a reset has the one number that ends the connection (RFC 5961, 3.2)."""
    assert reset.packet.tcp is not None
    return timeline.injected is not None and reset.packet.tcp.sequence == timeline.injected.exact


def _arrival(timeline: Timeline) -> Sighting | None:
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


def decide(timeline: Timeline) -> Verdict:
    """Decide what became of the trial."""
    return _verdict(timeline, *_outcome(timeline))


def decide_packet(timeline: Timeline) -> Verdict:
    """Decide what became of the judged packet, where no socket takes part that could live or die."""
    if timeline.injected is not None:
        return _verdict(timeline, *_fate(timeline, ()))
    if timeline.refusal is not None:
        return _verdict(timeline, Outcome.REFUSED, timeline.refused)
    if not timeline.complete:
        return _verdict(timeline, Outcome.STALLED, ("the handshake was not finished",))
    return _verdict(timeline, Outcome.CONNECTED, ("the handshake was finished",))


def _verdict(timeline: Timeline, outcome: Outcome, because: tuple[str, ...]) -> Verdict:
    """Lay conntrack's word on the judged packet, and what the witnesses disagree in, beside an outcome."""
    judged = timeline.judgement_of(timeline.injected.packet) if timeline.injected else None
    judgement = judged.judgement if judged else None
    because = (*because, *timeline.counters.told)
    disagreements = _disagreements(timeline, outcome, judged)
    return Verdict(outcome, judgement, judged.reason if judged else "", because, disagreements, timeline.findings)


def _killed(timeline: Timeline) -> str | None:
    """Tell how the judged packet itself ended the connection, as one of its sender's would; None where it did not."""
    arrival = _arrival(timeline)
    if arrival is None or arrival.packet.tcp is None or leaked(timeline):
        return None
    flags = arrival.packet.tcp.flags
    end = timeline.end_of(arrival.host)
    if flags & RST and end is not None and end.error == "ECONNRESET":
        return f"RST, {end.host}'s ECONNRESET"
    failed = [f"{end.host}'s {end.error}" for end in timeline.ends if end.error is not None]
    return ", ".join(("FIN", *failed)) if flags & FIN and failed else None


def _outcome(timeline: Timeline) -> tuple[Outcome, tuple[str, ...]]:
    server, client = timeline.end_of(timeline.server), timeline.end_of(timeline.client)
    failed = any(end.error for end in timeline.ends)
    if timeline.standstill and not failed:
        return Outcome.STALLED, timeline.standstill
    if server is None or client is None:
        return Outcome.REFUSED, timeline.refused
    if not timeline.complete:
        errors = f"server socket {server.error or 'without error'}, client socket {client.error or 'without error'}"
        if because := _reset(timeline):
            return Outcome.RESET, (because, errors)
        if because := _killed(timeline):
            return Outcome.KILLED, (because, errors)
        return (Outcome.LOST if server.error or client.error else Outcome.STALLED), (errors,)
    whole = f"all {client.received} bytes of the stream arrived"
    if timeline.injected is None:
        return Outcome.CONNECTED, (whole,)
    return _fate(timeline, (whole,))


def _reset(timeline: Timeline) -> str | None:
    """Tell how the answer to a leaked packet reset its sender's socket; None where that is not what was seen."""
    victim = timeline.end_of(_sender(timeline))
    if victim is None or victim.error not in ("ECONNRESET", "EPIPE"):
        return None
    for reset in resets(timeline):
        if leak := _leak_before(timeline, reset):
            is_judged = timeline.injected is not None and leak.packet.likeness == timeline.injected.packet.likeness
            return f"{'leaked' if is_judged else 'a later packet leaked'}, RST, {victim.error}"
    return None


def _fate(timeline: Timeline, more: tuple[str, ...]) -> tuple[Outcome, tuple[str, ...]]:
    """Tell what became of a packet that harmed nobody."""
    arrival = _arrival(timeline)
    if arrival is None:
        return Outcome.DROPPED, (_end_of_way(timeline), *more)
    where = f"came from {arrival.packet.source.address}"
    return (Outcome.LEAKED if leaked(timeline) else Outcome.DELIVERED), (where, *more)


def _unreachable(timeline: Timeline) -> Sighting | None:
    return unreachable(timeline.injected, timeline.sightings) if timeline.injected else None


def lost_where(timeline: Timeline) -> str | None:
    """Tell where the judged packet ended that came to nobody, and by whom; None where there is none."""
    return _end_of_way(timeline) if timeline.injected is not None and _arrival(timeline) is None else None


def _end_of_way(timeline: Timeline) -> str:
    """Tell where the judged packet ended, and by whom: only what was seen and counted there is named."""
    injected, counters = timeline.injected, timeline.counters
    assert injected is not None
    if error := _unreachable(timeline):
        return "; ".join((f"ICMP unreachable from {error.packet.source.address}", *counters.other_drops))
    last = end_of_way(injected.packet, timeline.sightings)
    where = f"ended at {last.host}" if last is not None else "seen nowhere"
    words = [one for one in timeline.judged if one.packet.likeness == injected.packet.likeness]
    if counters.dropped and any(one.judgement is Judgement.INVALID for one in words):
        return f"{counters.dropped} dropped by rule"
    if counters.other_drops:
        return f"{where}: {'; '.join(counters.other_drops)}"
    if not words and counters.moved:
        return f"{where}: conntrack's {', '.join(counters.moved)}"
    return f"{where}, and no rule that counts has dropped it"


def broken(timeline: Timeline) -> list[str]:
    """Return the case's own checks that do not hold, in words."""
    return [
        f"expected {check.words}" + (f", but it is {check.seen}" if check.seen else "")
        for check in timeline.checks
        if not check.holds
    ]


def miscounts(timeline: Timeline) -> list[str]:
    """Return where the witness's log, its counters, conntrack's own and the rules' differ in INVALID packets."""
    found = []
    logged = sum(judged.state == "invalid" for judged in timeline.judged)
    counted = timeline.counters.states.get("invalid", 0)
    if logged != counted:
        found.append(f"the witness logged {logged} INVALID packets and counted {counted}")
    logged_tcp = sum(judged.state == "invalid" and judged.packet.protocol == TCP for judged in timeline.judged)
    statistics = timeline.counters.statistics.get("invalid", 0)
    if logged_tcp != statistics:
        found.append(f"the witness logged {logged_tcp} INVALID packets, conntrack's statistics say {statistics}")
    if (timeline.counters.dropped or 0) > counted:
        found.append(f"rules dropped {timeline.counters.dropped} INVALID packets, the witness counted {counted}")
    return found


def disagreeing_witnesses(timeline: Timeline) -> list[str]:
    """Return what speaks against believing a timeline, whatever the scenario: faults, checks, counts that differ."""
    return [*timeline.faults, *broken(timeline), *miscounts(timeline)]


def _disagreements(timeline: Timeline, outcome: Outcome, judged: Judged | None) -> tuple[str, ...]:
    found = disagreeing_witnesses(timeline)
    injected, counters = timeline.injected, timeline.counters
    judgement = judged.judgement if judged else None
    # What conntrack itself drops, for it has no room for an entry, comes to no rule, and so to no witness.
    if injected is not None and injected.nodes and judged is None and not counters.statistics.get("drop"):
        found.append("no node's witness saw the judged packet")
    for end in timeline.ends:
        if not end.intact:
            found.append(f"{end.host} received bytes that were not sent")
    for node, predicted in injected.predictions.items() if injected else ():
        word = timeline.word_at(node, injected.packet) if injected else None
        if word is not None and predicted.judgement is not word.judgement:
            found.append(f"by the model of conntrack at {node} {predicted}, its word is {word.judgement}")
    translated = timeline.target != timeline.server_address
    by_node = judged is not None and judged.host == timeline.node
    if by_node and leaked(timeline) and judgement in (Judgement.ACCEPTED, Judgement.IGNORED):
        found.append(f"conntrack's word is {judgement}, and yet the packet was not translated back")
    if by_node and translated and judgement is Judgement.INVALID and outcome is Outcome.DELIVERED:
        found.append("conntrack's word is INVALID, and yet the packet was translated back")
    if (
        injected is not None
        and outcome is Outcome.DROPPED
        and judgement is Judgement.INVALID
        and counters.dropped == 0
        and not counters.other_drops
        and not _unreachable(timeline)
    ):
        found.append(f"the packet did not reach {injected.receiver}, but no rule counted a drop")
    victim = timeline.end_of(_sender(timeline))
    lives = victim is not None and victim.error is None and outcome not in (Outcome.RESET, Outcome.KILLED)
    if lives and any(_is_exact(timeline, reset) for reset in resets(timeline)):
        found.append(f"a reset with the exact number reached the {_sender(timeline)}, and yet its socket lives")
    return tuple(found)


def decide_retrying(timeline: Timeline) -> Verdict:
    """Decide what became of a trial whose client begins again, and what it cost."""
    verdict = decide(timeline)
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


def cost(timeline: Timeline) -> tuple[str, ...]:
    """Tell what all tries have cost, in figures that no machine's speed is in."""
    sent, count = sum(one.sent for one in timeline.tries), len(timeline.tries)
    return (
        f"{sent:,} bytes sent for {timeline.wanted:,}",
        f"{round_trips(timeline)} round trips until the last came",
        f"{count} connections" if count > 1 else "1 connection",
        *(f"{one.error} after {one.received:,} bytes" for one in timeline.tries if one.error),
    )


def round_trips(timeline: Timeline) -> int:
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
