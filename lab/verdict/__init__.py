"""What became of a trial, decided from its timeline alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from lab.conntrack.witness import Judgement
from lab.timeline import Timeline, unreachable
from lab.wire.capture import LOCAL, Sighting
from lab.wire.packet import RST, SYN, TCP


class Outcome(StrEnum):
    """What became of the connection and of the packet that was to disturb it."""

    RESET = "reset"  # the sender's socket was reset by the answer to a packet that leaked
    DROPPED = "dropped"  # the packet reached nobody, and the connection lives
    # The packet reached its receiver, translated as it has to be, and the connection lives; by datagram: all is
    # answered from the address that was asked.
    DELIVERED = "delivered"
    # The packet reached somebody without its translation, and the connection lives all the same; by datagram: an answer
    # did, and the client's socket did not take it.
    LEAKED = "leaked"
    RETRIED = "retried"  # reset, but the application began again on another connection, and nobody noticed
    KILLED = "killed"  # the packet itself ended the connection, as a packet of its sender's would
    REFUSED = "refused"  # there was no connection at all, or a datagram was refused
    STALLED = "stalled"  # the connection neither went on nor ended
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
    """Return the injected packet as it came to somebody without the translation that its connection has."""
    arrival = _arrival(timeline)
    if arrival is None or timeline.injected is None:
        return None
    packet = arrival.packet
    if arrival.host != timeline.injected.receiver:
        return arrival
    if arrival.host == timeline.client:
        pairs = [(packet.source, timeline.target)]
    else:
        pairs = [(packet.source, timeline.peer_address), (packet.destination, timeline.server_address)]
    if packet.tcp is None:  # ICMP has no ports
        return None if all(one.address == other.address for one, other in pairs) else arrival
    return None if all(one == other for one, other in pairs) else arrival


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
    if timeline.injected is None:
        return _verdict(timeline, Outcome.REFUSED, (f"no connection: {timeline.refusal}",))
    return _verdict(timeline, *_fate(timeline, ()))


def _verdict(timeline: Timeline, outcome: Outcome, because: tuple[str, ...]) -> Verdict:
    """Lay conntrack's word on the judged packet, and what the witnesses disagree in, beside an outcome."""
    judged = timeline.judgement_of(timeline.injected.packet) if timeline.injected else None
    judgement = judged.judgement if judged else None
    disagreements = _disagreements(timeline, outcome, judgement)
    return Verdict(outcome, judgement, judged.reason if judged else "", because, disagreements, timeline.findings)


def _killed(timeline: Timeline) -> str | None:
    """Return the host whose socket the judged packet itself has reset, None where it did not."""
    arrival = _arrival(timeline)
    if arrival is None or arrival.packet.tcp is None or not arrival.packet.tcp.flags & RST or leaked(timeline):
        return None
    end = timeline.end_of(arrival.host)
    return end.host if end is not None and end.error == "ECONNRESET" else None


def _outcome(timeline: Timeline) -> tuple[Outcome, tuple[str, ...]]:
    server, client = timeline.end_of(timeline.server), timeline.end_of(timeline.client)
    if server is None or client is None:
        return Outcome.REFUSED, (f"no connection: {timeline.refusal}",)
    if not timeline.complete:
        errors = f"server socket {server.error or 'without error'}, client socket {client.error or 'without error'}"
        if killed := _killed(timeline):
            return Outcome.KILLED, (f"RST, {killed}'s ECONNRESET", errors)
        victim = timeline.end_of(_sender(timeline))
        if victim is not None and victim.error in ("ECONNRESET", "EPIPE") and resets(timeline):
            return Outcome.RESET, (f"leaked, RST, {victim.error}", errors)
        return (Outcome.LOST if server.error or client.error else Outcome.STALLED), (errors,)
    return _fate(timeline, (f"all {client.received} bytes of the stream arrived",))


def _fate(timeline: Timeline, more: tuple[str, ...]) -> tuple[Outcome, tuple[str, ...]]:
    """Tell what became of a packet that harmed nobody."""
    arrival = _arrival(timeline)
    if arrival is None:
        return Outcome.DROPPED, (_end_of_way(timeline), *more)
    where = f"came from {arrival.packet.source.address}"
    return (Outcome.LEAKED if leaked(timeline) else Outcome.DELIVERED), (where, *more)


def _unreachable(timeline: Timeline) -> Sighting | None:
    return unreachable(timeline.injected, timeline.sightings) if timeline.injected else None


def _end_of_way(timeline: Timeline) -> str:
    if timeline.counters.dropped:
        return f"{timeline.counters.dropped} dropped by rule"
    error = _unreachable(timeline)
    return f"ICMP unreachable from {error.packet.source.address}" if error else "never arrived"


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
    """Return what speaks against believing a timeline, whatever is played: faults, checks, counts that differ."""
    return [*timeline.faults, *broken(timeline), *miscounts(timeline)]


def _disagreements(timeline: Timeline, outcome: Outcome, judgement: Judgement | None) -> tuple[str, ...]:
    found = disagreeing_witnesses(timeline)
    # What conntrack itself drops, for it has no room for an entry, comes to no rule, and so to no witness.
    if timeline.injected is not None and judgement is None and not timeline.counters.statistics.get("drop"):
        found.append("the node's witness never saw the injected packet")
    for end in timeline.ends:
        if not end.intact:
            found.append(f"{end.host} received bytes that were not sent")
    predicted = timeline.injected.predicted if timeline.injected else None
    if predicted is not None and predicted.judgement is not judgement:
        found.append(f"by the model of the window check {predicted}, conntrack's word is {judgement}")
    translated = timeline.target != timeline.server_address
    if leaked(timeline) and judgement in (Judgement.ACCEPTED, Judgement.IGNORED):
        found.append(f"conntrack's word is {judgement}, and yet the packet was not translated back")
    if translated and judgement is Judgement.INVALID and outcome is Outcome.DELIVERED:
        found.append("conntrack's word is INVALID, and yet the packet was translated back")
    if outcome is Outcome.DROPPED and timeline.counters.dropped == 0 and not _unreachable(timeline):
        found.append("the packet did not reach the client, but no rule counted a drop")
    lives = bool(timeline.ends) and outcome not in (Outcome.RESET, Outcome.KILLED)
    if lives and any(_is_exact(timeline, reset) for reset in resets(timeline)):
        found.append(f"a reset with the exact number reached the {_sender(timeline)}, and yet the connection went on")
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
