# SPDX-License-Identifier: MIT
"""What there is to tell of a connection when all its packets are read."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Final

from lab.capture import black_hole, ending, hops, icmp, openings
from lab.capture.catalogue import known
from lab.capture.connection import Connection, Segment
from lab.capture.explanation import Explained, Finding, Place
from lab.capture.naming import Naming
from lab.capture.saying import said
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK
from lab.verdict import Outcome
from lab.vocabulary import Behaviour

#: How often something was sent again and never acknowledged before it is said that it stands still: once may be late.
_GIVEN_UP: Final = 2


def explained(
    connection: Connection,
    behaviour: Behaviour,
    named: Naming,
    guessed: Container[tuple[str, int]] = (),
    last: int | None = None,
) -> Explained:
    """Return what a connection's packets tell of it.

    :param named: calls packets by their numbers.
    :param guessed: the packets, by file and number, whose sequence number and checksum nobody printed.
    :param last: when the capture ended.
    """
    connection.end(last)
    for segment in connection.odd:
        segment.guessed = (segment.place.file, segment.place.number) in guessed
    judged = [_of_segment(connection, segment, behaviour, named) for segment in connection.odd]
    if openings.is_half_open(connection):
        judged = [replace(one, case="") for one in judged]  # sent again for want of an answer, not late
    outcome = _outcome(connection)
    # What answers a packet is told with that.
    resets = [] if outcome is Outcome.RESET else _resets(connection)
    others = (
        *ending.findings(connection, resets, named),
        *openings.findings(connection, named),
        *black_hole.findings(connection, named),
        *_lost(connection, named),
        *_repeated(connection, named),
        *_closed(connection, named),
        *icmp.findings(connection, named),
    )
    return Explained(
        client=connection.client,
        target=connection.target,
        endpoint=connection.endpoint if connection.endpoint != connection.target else None,
        peer=connection.peer,
        begins=connection.begins,
        packets=connection.count,
        points=named.points(connection.points),
        section=connection.section,
        outcome=outcome,
        findings=(*judged, *others),
        untold=(*_untold(connection), *openings.untold(connection, named)),
        asked=connection.asked if connection.begins else None,
    )


def observed(connection: Connection, segment: Segment) -> Judgement | None:
    """Return what conntrack made of a packet: the model's word, unless what became of the packet says otherwise.

    None where it leaked and the model does not say why.
    """
    expected = segment.word.judgement
    if segment.leaked is not None:
        known = segment.word.by or segment.is_corrupt or segment.is_short or segment.makes_no_entry
        return Judgement.INVALID if known else None
    if expected is Judgement.INVALID and segment.translated and _is_seen_before(connection, segment):
        return Judgement.ACCEPTED
    return expected


def _is_seen_before(connection: Connection, segment: Segment) -> bool:
    """Check whether a packet was seen on both sides of its translation, which is then known to be the node's."""
    return len(segment.places) > 1 and connection.is_translated


def resets_of(connection: Connection, segment: Segment) -> list[Segment]:
    """Return the resets that answered a packet which came to a stranger."""
    if observed(connection, segment) not in (Judgement.INVALID, None) or segment.translated:
        return []
    return list(_answers(connection, segment))


def _answers(connection: Connection, segment: Segment) -> Iterator[Segment]:
    """Yield the resets that answer a packet: they have the number that it acknowledges (RFC 9293, 3.5.2)."""
    tcp = segment.packet.tcp
    assert tcp is not None
    for reset in connection.resets:
        number = reset.packet.tcp
        later = reset.place.time >= segment.place.time
        if number and later and reset.from_client != segment.from_client and tcp.flags & ACK:
            untranslated = reset.direct or (not reset.word.by and not _passed(connection, reset))
            if number.sequence == tcp.acknowledgement and untranslated:
                yield reset


def _outcome(connection: Connection) -> Outcome:
    segments = connection.odd
    if any(segment.is_strange_answer for segment in segments) and not connection.conntrack.established:
        refused = any(resets_of(connection, segment) for segment in segments)
        return Outcome.REFUSED if refused else Outcome.STALLED
    answers = [reset for segment in segments for reset in resets_of(connection, segment)]
    if any(reset.exact for reset in answers):
        return Outcome.RESET
    gone_by = any(segment.leaked or connection.ways.strayed(segment) for segment in segments)
    if connection.turned is not None or gone_by:
        return Outcome.LEAKED
    if any(error.leaked for error in connection.errors.values()):
        return Outcome.LEAKED
    if any(_is_gone(connection, segment) for segment in segments):
        return Outcome.DROPPED
    if black_hole.stands_still(connection):
        return Outcome.STALLED
    if ending.killers(connection, _resets(connection)):
        return Outcome.KILLED
    if connection.begins and not connection.conntrack.answered:
        told = connection.resets or any(error.is_refusal for error in connection.errors.values())
        return Outcome.REFUSED if told else Outcome.STALLED
    if openings.is_half_open(connection):
        return Outcome.STALLED
    if not connection.conntrack.closed and any(_is_open(connection, by_client=side) for side in connection.lost):
        return Outcome.STALLED
    if any(_unheard(connection, by_client=side) >= _GIVEN_UP for side in (True, False)):
        return Outcome.STALLED
    return Outcome.DELIVERED if segments else Outcome.CONNECTED


def _is_open(connection: Connection, *, by_client: bool) -> bool:
    """Check whether a packet of a side that was lost never came: what it carried was not acknowledged."""
    end = connection.lost[by_client].furthest
    acknowledged = connection.conntrack.awaited(from_client=by_client)
    return end is None or acknowledged is None or distance(acknowledged, end) > 0


def _passed(connection: Connection, reset: Segment) -> bool:
    """Check whether a reset was seen before its translation: then it is the client's word on the connection."""
    return bool(reset.streams & connection.seen.before[reset.from_client])


def _is_gone(connection: Connection, segment: Segment) -> bool:
    """Check whether a packet that is INVALID was not seen where its side's first one came to."""
    return (
        segment.word.judgement is Judgement.INVALID
        and not segment.translated
        and segment.leaked is None
        and (connection.ways.is_missing(segment) or bool(segment.streams & connection.seen.mixed))
    )


def _of_segment(connection: Connection, segment: Segment, behaviour: Behaviour, named: Naming) -> Finding:
    judgement = observed(connection, segment)
    answers = resets_of(connection, segment)
    harmless = not connection.is_translated and not answers
    let_through = judgement is Judgement.ACCEPTED
    case = known(segment, leaked=segment.leaked is not None, harmless=harmless, let_through=let_through)
    sentences = [said(segment, judgement, behaviour)]
    packets = [segment.place]
    if segment.leaked is not None:
        packets.append(segment.leaked)
        sentences.append(_leak(connection, segment, segment.leaked, named))
    for reset in answers:
        packets.append(reset.place)
        sentences.append(_answer(connection, segment, reset, named))
    if segment.is_strange_answer and not answers and not connection.conntrack.established:
        sentences.append("to the client it answers nothing, and its SYN stays without an answer")
    stray = connection.ways.strayed(segment)
    if stray is not None:
        packets.append(stray)
        sentences.append(f"untranslated it went another way: {named.where(stray)}")
    elif connection.ways.is_missing(segment) and _is_gone(connection, segment):
        sentences.append("it did not come as far as the first packet of its side: dropped, or lost")
    elif _is_gone(connection, segment):
        sentences.append("no translated copy of it follows: it leaked, or was dropped")
    return Finding(
        case.kind,
        "; ".join(sentences),
        tuple(packets),
        judgement,
        segment.word.condition,
        segment.word.excess,
        case.case,
        _helping(connection, segment, case.fixes),
        hops.of_segment(connection, segment, answers),
    )


def _helping(connection: Connection, segment: Segment, fixes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the fixes that help: against a drop only being liberal does, and what does no harm needs none."""
    if segment.leaked is not None or resets_of(connection, segment) or connection.ways.strayed(segment) is not None:
        return fixes
    return tuple(fix for fix in fixes if fix == "be-liberal" and _is_gone(connection, segment))


def _leak(connection: Connection, segment: Segment, place: Place, named: Naming) -> str:
    if segment.from_client:
        return f"leaked: {named.where(place)} is still for {connection.target}, behind the node"
    return (
        f"leaked: {named.where(place)} comes from {segment.packet.source}, and the client only knows"
        f" {connection.target}"
    )


def _answer(connection: Connection, segment: Segment, reset: Segment, named: Naming) -> str:
    if segment.is_strange_answer:
        end = "" if connection.conntrack.established else ", and nothing comes of the handshake"
        return f"RST {named(reset.place)} answers it: the client has not asked there{end}"
    deed = "the number that is awaited: it ends the connection" if reset.exact else "another number than is awaited"
    return f"RST {named(reset.place)} answers it, with {deed}"


def _resets(connection: Connection) -> list[Segment]:
    """Return the resets that are the sides' own words on the connection, while it lived."""
    answers = [id(reset) for segment in connection.odd for reset in resets_of(connection, segment)]
    return [
        one
        for one in connection.resets
        if not (one.direct or one.late or one.leaked or id(one) in answers) and one.word.judgement is Judgement.ACCEPTED
    ]


def _lost(connection: Connection, named: Naming) -> Iterator[Finding]:
    for from_client, lost in connection.lost.items():
        who = "client" if from_client else "server"
        words = (
            f"{lost.count:,} of the {who} did not come as far as its first one: lost, dropped, or not captured:"
            f" {lost.numbers(named)}"
        )
        yield Finding("lost", words, tuple(lost.first))


def _repeated(connection: Connection, named: Naming) -> Iterator[Finding]:
    for from_client, again in connection.repeats.again.items():
        who = "client" if from_client else "server"
        words = f"{again.count:,} sent again by the {who}: {again.numbers(named)}"
        if _unheard(connection, by_client=from_client):
            words += "; not acknowledged, as far as the capture goes"
        yield Finding("retransmission", words, tuple(again.first))


def _unheard(connection: Connection, *, by_client: bool) -> int:
    """Return how often a side sent again at last what was not acknowledged, behind the handshake."""
    at, count = connection.repeats.tries.get(by_client, (0, 0))
    acknowledged = connection.conntrack.awaited(from_client=by_client)
    if acknowledged is None or not connection.conntrack.established:
        return 0
    return count if distance(acknowledged, at) >= 0 else 0


def _closed(connection: Connection, named: Naming) -> Iterator[Finding]:
    for from_client, closed in connection.repeats.closed_window.items():
        who = "client" if from_client else "server"
        packets = "1 packet" if closed.count == 1 else f"{closed.count:,} packets"
        words = f"zero window: the {who} takes nothing more, in {packets}: {closed.numbers(named)}"
        yield Finding("zero-window", words, tuple(closed.first))


def _untold(connection: Connection) -> Iterator[str]:
    if not connection.begins:
        yield (
            "Its SYN is not in the capture: a node that saw no more than this would accept everything, so nothing can"
            " be said of its window."
        )
    if connection.odd and not connection.is_translated:
        yield (
            "No translation was seen: where there is a VIP, a capture of both sides of the node tells what became of"
            " the packets."
        )
