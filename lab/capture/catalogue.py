# SPDX-License-Identifier: MIT
"""Which case of the catalogue a packet in a capture is, and what helps there; by name, for the cases are above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.capture.connection import Segment
from lab.evidence.flags import URG
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, FIN, PSH, RST, SYN

_FAR: Final = 1 << 28  # bytes; nothing is lost or held back for so long by itself
_OUT_OF_WINDOW: Final = ("drop-forward", "be-liberal")
_INVALID_ANYHOW: Final = ("drop-forward",)
#: Without PSH.
_OF_FLAGS: Final = {
    0: "no-ack-flag",
    FIN | URG: "fin-psh-urg",
    SYN | ACK | URG: "syn-ack-urg",
    SYN | FIN | ACK: "syn-fin",
    FIN | RST | ACK: "fin-rst-ack",
}

#: What a SYN of the client's is that was ignored, by the entry's state; in SYN_RECV it is sent again.
_OF_SYN: Final = {**dict.fromkeys(("CLOSE", "TIME_WAIT"), "port-reused-after-server-reset"), "SYN_RECV": ""}

#: What it is that was let through, by what the model calls it INVALID for.
_LET_THROUGH: Final = {"window": ("out-of-window", "picked-up-by-service"), "reset": ("reset", "reset-behind-accepted")}


@dataclass(frozen=True)
class Known:
    """What is known of such a packet.

    :param kind: in a word.
    :param case: of the catalogue; empty where it is none.
    """

    kind: str
    case: str = ""
    fixes: tuple[str, ...] = ()


def known(segment: Segment, *, leaked: bool, harmless: bool, let_through: bool) -> Known:
    """Return what is known of a packet that is out of the ordinary.

    :param leaked: whether it came through untranslated.
    :param harmless: its connection is not translated, as far as is known, and nobody resets it.
    :param let_through: it was translated, though the model calls it INVALID.
    """
    by = segment.word.by
    if let_through and by in _LET_THROUGH:
        return Known(*_LET_THROUGH[by])
    if by == "window":
        return Known("out-of-window", _of_window(segment, harmless=harmless), _OUT_OF_WINDOW)
    if by == "flags":
        tcp = segment.packet.tcp
        assert tcp is not None
        return Known("flags", _OF_FLAGS.get(tcp.flags & ~PSH, "flag-sets"), _INVALID_ANYHOW)
    if by == "challenge":
        return Known("state", "last-ack-challenged")
    if by == "new":
        return Known("state")
    if by == "reset":
        return Known("reset", "reset-behind", _INVALID_ANYHOW)
    if by == "state":
        return Known("state", _of_state(segment), _INVALID_ANYHOW)
    if segment.is_corrupt:
        return Known("checksum", "bad-checksum", _INVALID_ANYHOW)
    if segment.is_short:
        return Known("header", "truncated-header", _INVALID_ANYHOW)
    if segment.is_strange_answer:
        tcp = segment.packet.tcp
        assert tcp is not None
        return Known("leak", "answer-past-node" if tcp.flags & SYN else "")
    if segment.guessed or (segment.midway and segment.idle is None):
        return Known("leak" if leaked else "odd")
    if segment.makes_no_entry:
        return Known("leak", "egress-fin-unknown" if segment.from_client else "", _INVALID_ANYHOW)
    # Nothing about it is INVALID, so its entry was gone: it is NEW, and no fix drops or keeps it.
    gone = segment.idle.case if segment.idle is not None else "entry-deleted"
    return Known("leak" if leaked else "odd", gone if leaked else "")


def _of_window(segment: Segment, *, harmless: bool) -> str:
    word, packet = segment.word, segment.packet
    tcp = packet.tcp
    assert tcp is not None
    if tcp.flags & RST:
        return "reset-out-of-window"
    with_data = "" if packet.payload_length else "-without-data"
    if word.condition == "I":
        if segment.from_client:
            return "client-beyond-window"
        if word.judgement == "ignored":
            return "last-ignored-byte-with-data" if packet.payload_length else "last-ignored-byte"
        if harmless:
            return "without-nat"
        if word.excess < _FAR:
            return "first-invalid-byte-with-data" if packet.payload_length else "first-invalid-byte"
        return f"beyond-window{with_data}"
    if word.condition == "II":
        return f"{'far-behind' if word.excess >= _FAR else 'upstream-regression'}{with_data}"
    name = "ack-below" if word.condition == "IV" else "sack-beyond" if tcp.sack_blocks else "ack-above"
    return f"{name}-with-data" if packet.payload_length else name


def _of_state(segment: Segment) -> str:
    tcp = segment.packet.tcp
    assert tcp is not None
    if tcp.flags & (SYN | ACK) == SYN | ACK:
        return "syn-ack-again" if segment.word.judgement is Judgement.IGNORED else ""
    if tcp.flags & SYN and segment.from_client and segment.word.judgement is Judgement.INVALID:
        return "syn-from-server-in-close"  # who was the server is the client of this connection
    if tcp.flags & SYN and segment.from_client:
        return _OF_SYN.get(segment.word.state, "syn-from-client")
    if tcp.flags & SYN:
        return "syn-from-server"
    return "asymmetric-route-clients-half" if segment.from_client else "port-reused-challenged"
