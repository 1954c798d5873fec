# SPDX-License-Identifier: MIT
"""What there is to tell of the RSTs by which a connection ends: who sent each, and whether it killed anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.capture.connection import Connection, Segment
from lab.capture.explanation import Finding
from lab.capture.naming import Naming
from lab.capture.several import SHOWN
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK


def killers(connection: Connection, resets: Sequence[Segment]) -> list[Segment]:
    """Return those of a connection's resets that kill it."""
    return [one for one in resets if one.exact and not _is_end(connection, one)]


def findings(connection: Connection, resets: Sequence[Segment], named: Naming) -> Iterator[Finding]:
    """Yield what there is to tell of the resets, up to the first one that the other end got.

    :param resets: in the sides' names, while the connection lived; those that answer a packet are told with that one.
    """
    for same in _alike(connection, resets):
        reset, places = same[0], tuple(one.place for one in same)
        numbers = named(reset.place) if len(same) == 1 else named.all(places[:SHOWN], more=len(places) > SHOWN)
        who = _who(reset.from_client)
        between = _between(connection, reset, named)
        case = ""
        if not connection.begins and not reset.exact:
            yield Finding("reset", f"RST {numbers} of the {who}: what it is about is not in the capture", places)
        elif not connection.conntrack.answered:
            words = (
                f"refused in the server's name: RST {numbers}"
                if between
                else f"the server refuses the connection: RST {numbers}"
            )
            yield Finding("refused", words + between, places)
        elif reset.exact:
            words = f"the {who} resets the connection: RST {numbers}, with the number that is awaited"
            words = (
                words if not between else f"a reset in the {who}'s name: RST {numbers}, with the number that is awaited"
            )
            case = "" if between else "reset-exact-from-client" if reset.from_client else "reset-exact"
            is_missing = connection.ways.is_missing(reset)
            words += (
                between or _own(connection, reset) + "; it did not come as far as its side's first packet" * is_missing
            )
            yield Finding("reset", words, places, Judgement.ACCEPTED, case=case)
            if not between and not is_missing:
                return
        else:
            words = (
                f"RST {numbers} of the {who} has not the number that is awaited, as far as was captured: its receiver"
                f" asks back (RFC 5961) and lives{between}"
            )
            case = "" if between else "reset-inexact-from-client" if reset.from_client else "reset-inexact"
            yield Finding("reset", words, places, Judgement.ACCEPTED, case=case)


def _alike(connection: Connection, resets: Sequence[Segment]) -> list[list[Segment]]:
    """Return the resets, those together of which the same is to be told."""
    found: dict[tuple[object, ...], list[Segment]] = {}
    for one in resets:
        tcp = one.packet.tcp
        assert tcp is not None
        points = frozenset(stream[:2] for stream in one.streams)
        key = (one.from_client, tcp.sequence, tcp.flags, one.exact, points, connection.ways.is_missing(one))
        found.setdefault(key, []).append(one)
    return list(found.values())


def _between(connection: Connection, reset: Segment, named: Naming) -> str:
    """Return that a reset is not of the side in whose name it is, in words; empty where nothing tells so.

    What only goes out where its side's packets come in, the machine that captured made; so it did what is not where
    they come by first.
    """
    side = reset.from_client
    asked, first = connection.ways.first.get(True), connection.ways.first.get(side)
    only_out = all(stream[2] is True for stream in reset.streams)
    file = reset.place.file
    if first is None:
        came_in = asked is not None and any(one[0] == file and one[2] is False for one in asked.streams)
        if not (only_out and came_in and not side):
            return ""
        return (
            f": it only went out, so the machine that captured sent it itself{_at(reset)}: by a rule (`REJECT"
            " --reject-with tcp-reset`), or as nobody listens where the address is its own"
        )
    if only_out and any(one[0] == file and one[2] is False for one in first.streams):
        return f": it only went out, so the machine that captured sent it itself{_at(reset)}, and not the {_who(side)}"
    home = (first.place.file, first.place.point)
    if home in {stream[:2] for stream in reset.streams} or len({stream[:2] for stream in first.streams}) < 2:
        return ""
    return (
        f": {named.point(home) or 'the point'}, where the {_who(side)}'s packets come by first, has none of it: it was"
        " made between, unless that capture lacks it"
    )


def _at(reset: Segment) -> str:
    return f" at {reset.place.point}" if reset.place.point else ""


def _who(side: bool) -> str:
    return "client" if side else "server"


def _is_end(connection: Connection, reset: Segment) -> bool:
    """Check whether a side closes by a RST as programs do, with SO_LINGER 0: nothing was under way, or waited for.

    A socket's own acknowledges. That all was acknowledged says nothing of whether it was read, so the server has to
    have had the last word, by data or a FIN, and neither side a window that is closed.
    """
    tcp, side, repeats = reset.packet.tcp, reset.from_client, connection.repeats
    if tcp is None or not tcp.flags & ACK or any(repeats.shut.values()):
        return False
    if repeats.spoke is not False and False not in repeats.ended:
        return False
    came, sent = connection.conntrack.awaited(from_client=side), connection.conntrack.sent(by_client=not side)
    return tcp.sequence == came and tcp.acknowledgement == sent


def _own(connection: Connection, reset: Segment) -> str:
    """Return what a RST's ACK tells: a socket has it when its program aborts, and no answer to a segment has.

    tcp_send_active_reset and tcp_v4_send_reset of Linux; RFC 9293, 3.5.2.
    """
    if reset.packet.tcp is None or not reset.packet.tcp.flags & ACK:
        return ""
    words = "; it acknowledges, as that of a socket which is aborted: by its program, with data unread, or by a timeout"
    if _is_end(connection, reset):
        return (
            f"{words}; the server had the last word and all was acknowledged before, so this is an end as programs"
            " make it (SO_LINGER 0), though no acknowledgement tells what was read"
        )
    for side, shut in connection.repeats.shut.items():
        if shut:
            return f"{words}; the {_who(side)} had a zero window: what it had got was not all read"
    unread = connection.repeats.spoke and not reset.from_client
    return f"{words}; what the client sent last was acknowledged at the most, and not answered" if unread else words
