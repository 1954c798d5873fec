# SPDX-License-Identifier: MIT
"""What is said of one packet that conntrack did not like, or that leaked: a sentence."""

from __future__ import annotations

from typing import Final

from lab.capture.connection import Segment
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK
from lab.vocabulary import Behaviour

#: Why a packet may have been let through, by what it was INVALID for.
_MERCY: Final = {
    "window": (
        "nf_conntrack_tcp_be_liberal is set there, or the entry was picked up in the middle of the connection (deleted,"
        " and made anew by a later packet)"
    ),
    "reset": "nf_conntrack_tcp_ignore_invalid_rst is set there, or the entry was closing",
    "flags": "conntrack did not look at it there",
}
_CONDITIONS: Final = {
    "I": "begins beyond what its receiver ever granted",
    "II": "ends more than a window behind what its sender had sent",
    "III": "acknowledges what was not seen yet",
    "IV": "acknowledges what is far too old",
}

#: Why a packet may not have been translated, where nothing says it.
UNSURE: Final = (
    "its entry was gone (deleted, or expired), or conntrack did not like what the model does not look at, such as its"
    " checksum"
)


def said(segment: Segment, judgement: Judgement | None, behaviour: Behaviour) -> str:
    """Return what is said of a packet.

    :param judgement: what became of it; None where that is not known.
    """
    word, packet = segment.word, segment.packet
    assert packet.tcp is not None
    who = "client" if segment.from_client else "server"
    what = f"{packet.tcp.flag_names} of the {who}, {packet.payload_length:,} bytes"
    if not word.by:
        return f"{what}: {_unexplained(segment)}"
    words = f"{what}: {judgement if judgement is word.judgement else word.judgement}{_why(segment, judgement)}"
    if judgement is Judgement.ACCEPTED:
        return f"{words}; it was translated all the same: {_MERCY.get(word.by, 'the entry was in another state there')}"
    if judgement is Judgement.INVALID and word.judgement is Judgement.IGNORED:
        return f"{words}; it was not translated: INVALID there, as kernels up to Linux 6.0 judge it"
    if word.judgement is Judgement.IGNORED and word.by == "window" and behaviour is Behaviour.IGNORES_LATE:
        return f"{words} (let through and translated; up to Linux 6.0 it is INVALID)"
    return words


def _why(segment: Segment, judgement: Judgement | None) -> str:
    """Return why conntrack did not like a packet, by the model."""
    word = segment.word
    distance = f"{word.excess:,} {'byte' if word.excess == 1 else 'bytes'}"
    if word.by == "window":
        excess = f"{'at least ' if word.at_least else ''}{distance}"
        return f" by condition {word.condition}: it {_CONDITIONS[word.condition]}, by {excess}"
    if word.by == "reset":
        return f": a reset whose number is {distance} behind what its receiver has acknowledged"
    if word.by == "state" and judgement is Judgement.INVALID:
        return f" by the table of states: there is no such packet where the entry is in {word.state}"
    if word.by == "state":
        return f" by the table of states: in {word.state} its receiver is to say whether it is right"
    return {
        "flags": ": no packet has these flags together",
        "challenge": ": it is the server's challenge (RFC 5961) to the SYN before, and acknowledges no last FIN",
        "new": ": there is no entry, and such a packet makes none",
    }[word.by]


def _unexplained(segment: Segment) -> str:
    """Return what is said of a packet that leaked, and that the model does not say a word against."""
    tcp = segment.packet.tcp
    assert tcp is not None
    if segment.is_strange_answer:
        only = "" if tcp.flags & ACK else "; it acknowledges nothing: its port and its time say that it is"
        return (
            "an answer to the client's SYN from a stranger: untranslated, so it came past the node that translated the"
            f" SYN, or the entry was gone there{only}"
        )
    if segment.is_corrupt:
        return "INVALID: its checksum is wrong"
    if segment.is_short:
        return "INVALID: its TCP header says that it is longer than the packet"
    if segment.midway and segment.idle is None:
        return (
            "not translated: why is not to be told, as the connection's SYN is not in the capture: it was INVALID, by"
            " the window or otherwise, or its entry was gone"
        )
    if segment.guessed:
        return (
            "not translated: INVALID by its sequence number or its checksum, which are not printed (tcpdump -vv does),"
            " or its entry was gone"
        )
    if segment.makes_no_entry:
        gone = segment.idle or "deleted, or expired"
        return f"INVALID: its entry was gone ({gone}), and such a packet makes none"
    if segment.idle is not None:
        return f"within the window, and yet not translated: its entry was gone: {segment.idle}"
    return f"within the window, and yet not translated: {UNSURE}"
