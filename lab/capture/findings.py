# SPDX-License-Identifier: MIT
"""What there is to tell of a connection when all its packets are read."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from lab.capture import black_hole, hops, icmp
from lab.capture.catalogue import known
from lab.capture.connection import Connection, Segment
from lab.capture.explanation import Explained, Finding, Place
from lab.capture.naming import Naming
from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK
from lab.verdict import Outcome
from lab.vocabulary import Behaviour

_CONDITIONS: Final = {
    "I": "begins behind what its receiver ever granted",
    "II": "ends more than a window behind what its sender had sent",
    "III": "acknowledges what was not seen yet",
    "IV": "acknowledges what is far too old",
}


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
    outcome = _outcome(connection)
    others = (
        *_killed(connection, outcome, named),
        *_unanswered(connection, named),
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
        untold=tuple(_untold(connection)),
    )


def observed(connection: Connection, segment: Segment) -> Judgement | None:
    """Return what conntrack made of a packet: the model's word, unless what became of the packet says otherwise.

    None where it leaked and the model does not say why.
    """
    expected = segment.word.judgement
    if segment.leaked is not None:
        return Judgement.INVALID if segment.word.by or segment.is_corrupt else None
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
            untranslated = reset.direct or (not reset.word.by and not connection.passed(reset))
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
    if any(segment.leaked or connection.ways.strayed(segment) for segment in segments):
        return Outcome.LEAKED
    if any(error.leaked for error in connection.errors.values()):
        return Outcome.LEAKED
    if any(_is_gone(connection, segment) for segment in segments):
        return Outcome.DROPPED
    if black_hole.stands_still(connection):
        return Outcome.STALLED
    if _killers(connection):
        return Outcome.KILLED
    if connection.begins and not connection.conntrack.answered:
        told = connection.resets or any(error.is_refusal for error in connection.errors.values())
        return Outcome.REFUSED if told else Outcome.STALLED
    if _is_half_open(connection):
        return Outcome.STALLED
    if not connection.conntrack.closed and any(_is_open(connection, by_client=side) for side in connection.lost):
        return Outcome.STALLED
    return Outcome.DELIVERED if segments else Outcome.CONNECTED


def _is_open(connection: Connection, *, by_client: bool) -> bool:
    """Check whether a packet of a side that was lost never came: what it carried was not acknowledged."""
    end = connection.lost[by_client].furthest
    acknowledged = connection.conntrack.awaited(from_client=by_client)
    return end is None or acknowledged is None or distance(acknowledged, end) > 0


def _is_gone(connection: Connection, segment: Segment) -> bool:
    """Check whether a packet that is INVALID was not seen where its side's first one came to."""
    return (
        segment.word.judgement is Judgement.INVALID
        and not segment.translated
        and segment.leaked is None
        and (connection.ways.is_missing(segment) or connection.is_mixed(segment))
    )


def _of_segment(connection: Connection, segment: Segment, behaviour: Behaviour, named: Naming) -> Finding:
    judgement = observed(connection, segment)
    answers = resets_of(connection, segment)
    case = known(segment, leaked=segment.leaked is not None, harmless=not connection.is_translated and not answers)
    sentences = [_said(segment, judgement, behaviour)]
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


def _said(segment: Segment, judgement: Judgement | None, behaviour: Behaviour) -> str:
    word = segment.word
    packet = segment.packet
    assert packet.tcp is not None
    who = "client" if segment.from_client else "server"
    what = f"{packet.tcp.flag_names} of the {who}, {packet.payload_length:,} bytes"
    distance = f"{word.excess:,} {'byte' if word.excess == 1 else 'bytes'}"
    if word.by == "window":
        excess = f"{'at least ' if word.at_least else ''}{distance}"
        why = f" by condition {word.condition}: it {_CONDITIONS[word.condition]}, by {excess}"
    elif word.by == "flags":
        why = ": no packet has these flags together"
    elif word.by == "reset":
        why = f": a reset whose number is {distance} behind what its receiver has acknowledged"
    elif word.by == "state":
        why = " by the table of states: the connection is not where such a packet belongs"
    elif segment.is_strange_answer:
        only = "" if packet.tcp.flags & ACK else "; it acknowledges nothing: its port and its time say that it is"
        return (
            f"{what}: an answer to the client's SYN from a stranger: untranslated, so it came past the node that"
            f" translated the SYN, or the entry was gone there{only}"
        )
    elif segment.is_corrupt:
        return f"{what}: INVALID: its checksum is wrong"
    elif segment.midway and segment.idle is None:
        return (
            f"{what}: not translated: why is not to be told, as the connection's SYN is not in the capture: it was"
            " INVALID, by the window or otherwise, or its entry was gone"
        )
    elif segment.guessed:
        return (
            f"{what}: not translated: INVALID by its sequence number or its checksum, which are not printed (tcpdump"
            " -vv does), or its entry was gone"
        )
    elif segment.idle is not None:
        return f"{what}: within the window, and yet not translated: its entry was gone: {segment.idle}"
    else:
        return (
            f"{what}: within the window, and yet not translated: its entry was gone (deleted, or expired), or conntrack"
            " did not like what the model does not look at, such as its checksum"
        )
    said = f"{what}: {judgement if judgement is word.judgement else word.judgement}{why}"
    if judgement is Judgement.ACCEPTED:
        return f"{said}; it was translated all the same: nf_conntrack_tcp_be_liberal is set there, or the like"
    if judgement is Judgement.INVALID and word.judgement is Judgement.IGNORED:
        return f"{said}; it was not translated: INVALID there, as kernels up to Linux 6.0 judge it"
    if word.judgement is Judgement.IGNORED and word.by == "window" and behaviour is Behaviour.IGNORES_LATE:
        return f"{said} (let through and translated; up to Linux 6.0 it is INVALID)"
    return said


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


def _killers(connection: Connection) -> list[Segment]:
    return [one for one in _resets(connection) if one.exact]


def _resets(connection: Connection) -> list[Segment]:
    """Return the resets that are the sides' own words on the connection, while it lived."""
    answers = [id(reset) for segment in connection.odd for reset in resets_of(connection, segment)]
    return [
        one
        for one in connection.resets
        if not (one.direct or one.late or one.leaked or id(one) in answers) and one.word.judgement is Judgement.ACCEPTED
    ]


def _killed(connection: Connection, outcome: Outcome, named: Naming) -> Iterator[Finding]:
    if outcome is Outcome.RESET:
        return  # told with the packet that it answers
    for reset in _resets(connection):
        who = "client" if reset.from_client else "server"
        number = named(reset.place)
        if not connection.begins and not reset.exact:
            words = f"RST {number} of the {who}: what it is about is not in the capture"
            yield Finding("reset", words, (reset.place,))
        elif not connection.conntrack.answered:
            yield Finding("refused", f"the server refuses the connection: RST {number}", (reset.place,))
        elif reset.exact:
            words = f"the {who} resets the connection: RST {number}, with the number that is awaited{_own(reset)}"
            case = "reset-exact-from-client" if reset.from_client else "reset-exact"
            yield Finding("reset", words, (reset.place,), Judgement.ACCEPTED, case=case)
            return
        else:
            words = (
                f"RST {number} of the {who} has not the number that is awaited, as far as was captured: its receiver"
                " asks back (RFC 5961) and lives"
            )
            case = "reset-inexact-from-client" if reset.from_client else "reset-inexact"
            yield Finding("reset", words, (reset.place,), Judgement.ACCEPTED, case=case)


def _own(reset: Segment) -> str:
    """Return what a RST's ACK tells: a socket has it when its program aborts, and no answer to a segment has.

    tcp_send_active_reset and tcp_v4_send_reset of Linux; RFC 9293, 3.5.2.
    """
    is_abort = reset.packet.tcp is not None and reset.packet.tcp.flags & ACK
    return (
        "; it acknowledges, as that of a socket which is aborted: by its program, with data unread, or by a timeout"
        if is_abort
        else ""
    )


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
        yield Finding(
            "retransmission", f"{again.count:,} sent again by the {who}: {again.numbers(named)}", tuple(again.first)
        )


def _closed(connection: Connection, named: Naming) -> Iterator[Finding]:
    for from_client, closed in connection.repeats.closed_window.items():
        who = "client" if from_client else "server"
        packets = "1 packet" if closed.count == 1 else f"{closed.count:,} packets"
        words = f"zero window: the {who} takes nothing more, in {packets}: {closed.numbers(named)}"
        yield Finding("zero-window", words, tuple(closed.first))


def _unanswered(connection: Connection, named: Naming) -> Iterator[Finding]:
    if connection.begins and not connection.conntrack.answered and not connection.resets:
        yield Finding("unanswered", "nobody answers its SYN, as far as the capture goes", ())
    elif _is_half_open(connection):
        answer = connection.ways.first[False]
        lacks = connection.is_translated and not answer.translated
        form = ", not translated back: it leaked, or was dropped" if lacks else ""
        then = ", and sends that again" if connection.asked > answer.place.time else ""
        words = (
            f"the client does not get the answer to its SYN{then}: the SYN,ACK was seen last as"
            f" {named.where(answer.places[-1])}{form}"
        )
        yield Finding("unanswered", words, tuple(answer.places))


def _is_half_open(connection: Connection) -> bool:
    """Check whether a SYN was sent again behind its answer, or that never came back, and nothing else came of it."""
    conntrack, answer = connection.conntrack, connection.ways.first.get(False)
    if not connection.begins or answer is None or conntrack.established or connection.resets or connection.odd:
        return False
    return connection.asked > answer.place.time or connection.ways.never_back


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
