# SPDX-License-Identifier: MIT
"""What became of a connection of two sockets, and of the packet that was to disturb it."""

from __future__ import annotations

from lab.evidence.packet import ACK, FIN, RST
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import ConnectionTimeline
from lab.verdict.packet import arrival_of, fate, is_untranslated, leaked, verdict_of
from lab.verdict.verdict import Outcome, Verdict


def decide(timeline: ConnectionTimeline) -> Verdict:
    """Decide what became of the trial."""
    outcome, because = _outcome(timeline)
    return verdict_of(timeline, outcome, because, tuple(_disagreements(timeline, outcome)))


def _outcome(timeline: ConnectionTimeline) -> tuple[Outcome, tuple[str, ...]]:
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
    lives = "both sockets live on"
    whole = lives if timeline.is_somebodys else f"all {client.received} bytes of the stream arrived"
    if timeline.injected is None:
        return Outcome.CONNECTED, (whole,)
    return fate(timeline, (whole,))


def _reset(timeline: ConnectionTimeline) -> str | None:
    """Return how the answer to a leaked packet reset its sender's socket; None where that is not what was seen."""
    victim = timeline.end_of(_sender(timeline))
    if victim is None or victim.error not in ("ECONNRESET", "EPIPE"):
        return None
    for reset in resets(timeline):
        if leak := _leak_before(timeline, reset):
            is_judged = timeline.injected is not None and leak.packet.likeness == timeline.injected.packet.likeness
            return f"{'leaked' if is_judged else 'a later packet leaked'}, RST, {victim.error}"
    return None


def _leak_before(timeline: ConnectionTimeline, reset: Sighting) -> Sighting | None:
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
        from_victim = sighting.packet.source in own and is_untranslated(timeline, sighting)
        if from_victim and tcp.flags & ACK and tcp.acknowledgement == reset.packet.tcp.sequence:
            return sighting
    return None


def resets(timeline: ConnectionTimeline) -> tuple[Sighting, ...]:
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


def _sender(timeline: ConnectionTimeline) -> str:
    return timeline.injected.host if timeline.injected else timeline.server


def _killed(timeline: ConnectionTimeline) -> str | None:
    """Return how the judged packet itself ended the connection, as one of its sender's would; None where it did not."""
    arrival = arrival_of(timeline)
    if arrival is None or arrival.packet.tcp is None or leaked(timeline):
        return None
    flags = arrival.packet.tcp.flags
    end = timeline.end_of(arrival.host)
    if flags & RST and end is not None and end.error == "ECONNRESET":
        return f"RST, {end.host}'s ECONNRESET"
    failed = [f"{end.host}'s {end.error}" for end in timeline.ends if end.error is not None]
    return ", ".join(("FIN", *failed)) if flags & FIN and failed else None


def _is_exact(timeline: ConnectionTimeline, reset: Sighting) -> bool:
    """Check whether a reset has the one number that ends the connection (RFC 5961, 3.2)."""
    assert reset.packet.tcp is not None
    return timeline.injected is not None and reset.packet.tcp.sequence == timeline.injected.exact


def _disagreements(timeline: ConnectionTimeline, outcome: Outcome) -> list[str]:
    """Return where the sockets contradict each other, or what was seen."""
    found = [f"{end.host} received bytes that were not sent" for end in timeline.ends if not end.intact]
    victim = timeline.end_of(_sender(timeline))
    lives = victim is not None and victim.error is None and outcome not in (Outcome.RESET, Outcome.KILLED)
    if lives and any(_is_exact(timeline, reset) for reset in resets(timeline)):
        found.append(f"a reset with the exact number reached the {_sender(timeline)}, and yet its socket lives")
    return found
