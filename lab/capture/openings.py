# SPDX-License-Identifier: MIT
"""What there is to tell of how a connection begins, and by which ways it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lab.capture.connection import Connection, Segment
from lab.capture.explanation import Finding, Point
from lab.capture.naming import Naming
from lab.capture.states import State
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SYN


def findings(connection: Connection, named: Naming) -> Iterator[Finding]:
    """Yield what is out of the ordinary of a connection's beginning."""
    yield from _unanswered(connection, named)
    yield from _turned(connection, named)
    yield from _unrouted(connection, named)


def _unanswered(connection: Connection, named: Naming) -> Iterator[Finding]:
    if is_half_open(connection):
        answer = connection.ways.first[False]
        lacks = connection.is_translated and not answer.translated
        form = ", not translated back: it leaked, or was dropped" if lacks else ""
        asks_again = connection.asked > answer.place.time
        words = "the client does not get the answer to its SYN"
        if not asks_again and not connection.ways.never_back:
            words = "nothing of the client follows the answer to its SYN, which is sent again"
        words += (
            f"{', and sends that again' if asks_again else ''}: the SYN,ACK was seen last as"
            f" {named.where(answer.places[-1])}{form}"
        )
        yield Finding("unanswered", words, tuple(answer.places))
    if not connection.begins or connection.conntrack.answered or connection.resets:
        return
    words, asked = "nobody answers its SYN, as far as the capture goes", connection.ways.first.get(True)
    if asked is None:
        yield Finding("unanswered", words, ())
        return
    last, (_file, _point, is_out) = asked.places[-1], asked.forms[-1][0]
    if len(connection.points) < 2:
        if is_out is False:
            words += f"; it came in as {named.where(last)}, and was not seen going out: dropped there, or lost"
        yield Finding("unanswered", words, (last,) if is_out is False else ())
        return
    words += f"; it was seen last as {named.where(last)}"
    if not connection.is_translated and len(asked.places) == len(asked.streams):
        words += (
            ": where others like it go on from there, it was dropped, by a rule or for want of a free port to"
            " masquerade it to, which a capture does not tell (`conntrack -S`: insert_failed; `lab show"
            " snat-ports-used-up`)"
        )
    yield Finding("unanswered", words, (last,))


def is_half_open(connection: Connection) -> bool:
    """Check whether a SYN's answer never came back, or one of both was sent again behind it; and nothing else came."""
    conntrack, answer = connection.conntrack, connection.ways.first.get(False)
    if not connection.begins or answer is None or conntrack.established or connection.resets:
        return False
    again = [one for one in connection.odd if is_repeated(one)]
    sent_again = connection.asked > answer.place.time or any(not one.from_client for one in again)
    return len(again) == len(connection.odd) and (sent_again or connection.ways.never_back)


def is_repeated(segment: Segment) -> bool:
    """Check whether a packet is of a handshake that is not finished, sent again: its entry ignores it."""
    assert segment.packet.tcp is not None
    word = segment.word
    is_ignored = word.judgement is Judgement.IGNORED and word.state == State.SYN_RECV
    return is_ignored and bool(segment.packet.tcp.flags & SYN)


#: Of the entry that a SYN of the other side finds: the case that it is.
_TURNED: Final = {State.CLOSE: "syn-from-server-in-close", State.TIME_WAIT: "syn-from-server-in-time-wait"}


def _turned(connection: Connection, named: Naming) -> Iterator[Finding]:
    """Yield that a server connects back to a client that knew it by a VIP."""
    asked = connection.ways.first.get(True) or next((one for one in connection.odd if one.from_client), None)
    if connection.turned is None or asked is None:
        return
    is_invalid = asked.word.judgement is Judgement.INVALID
    why = "INVALID by the table of states" if is_invalid else "it finds that connection's entry, and makes another one"
    words = (
        f"{named.where(asked.place)}: the server of a connection that is over connects back: {why}; it goes out"
        f" untranslated, and who gets it knew {connection.client} by {connection.turned} alone"
    )
    judgement = Judgement.INVALID if is_invalid else None
    case = _TURNED[State.CLOSE if is_invalid else State.TIME_WAIT]
    yield Finding("leak", words, (asked.place,), judgement, case=case)


def _unrouted(connection: Connection, named: Naming) -> Iterator[Finding]:
    """Yield that somebody has no route to a VIP: then the node has not translated what was for it."""
    judged = any(one.from_client and one.word.judgement is Judgement.INVALID for one in connection.odd)
    if judged or not connection.is_translated or not connection.conntrack.established:
        return
    for error in connection.errors.values():
        if error.is_refusal and error.about == connection.target and not error.is_translated:
            places = tuple(error.places[:1])
            words = (
                f"{error.source} knows no way to {connection.target} ({named.packet(places[0])}), which is a VIP: it"
                " did not translate what was for it. It was INVALID, or its entry was gone and nf_conntrack_tcp_loose"
                " is 0 there"
            )
            yield Finding("untranslated", words, places, case="entry-deleted-strictly-client-first")


def untold(connection: Connection, named: Naming) -> Iterator[str]:
    """Yield what a capture leaves open of a connection's ways, in sentences."""
    ways = {side: connection.seen.seen_at(from_client=side) for side in (True, False)}
    if all(ways.values()) and not ways[True] & ways[False]:
        client, server = (_at(ways[side], named) for side in (True, False))
        yield (
            f"What the client sends is captured at {client} alone, and what the server sends at {server}: if these are"
            " two ways, and not two halves of a capture, conntrack on each sees one direction alone. Where that is the"
            " client's, its first ACK is INVALID; where it is the server's, its SYN,ACK is, and the next packet makes"
            " an entry in which nothing is INVALID (`lab show asymmetric-route asymmetric-route-clients-half`)."
        )


def _at(points: set[Point], named: Naming) -> str:
    return ", ".join(sorted(named.points(points))) or "one point"
