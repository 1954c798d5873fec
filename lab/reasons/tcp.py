# SPDX-License-Identifier: MIT
"""The reasons of TCP's tracker: net/netfilter/nf_conntrack_proto_tcp.c.

Words and what follows from them are those of Linux 5.10, 5.18 and 6.1 in source, and of the modules of Debian's kernels
5.10.262, 6.1.192, 6.12.118, 6.18.15 and 7.3.4.
"""

from __future__ import annotations

from typing import Final

from lab.reasons.reason import MILDLY, Became, Reason, Wording, always
from lab.vocabulary import Behaviour

_FILE: Final = "nf_conntrack_proto_tcp.c"
_WINDOW: Final = f"{_FILE}, tcp_in_window"
_DROP: Final = ("drop-forward",)
_BOTH: Final = ("drop-forward", "be-liberal")


def _of_window(new: str, old: str) -> tuple[Wording, ...]:
    wordings = (
        Wording(new, "from 6.1 on", Behaviour.IGNORES_LATE, not_until=(6, 0)),
        Wording(old, "up to 6.0", Behaviour.STRICT, not_from=(6, 1)),
    )
    return tuple(one for one in wordings if one.text)


_BY_WINDOW: Final = (
    Reason(
        "seq-over",
        "TCP",
        _of_window(
            "SEQ is over upper bound %u (over the window of the receiver)",
            "SEQ is over the upper bound (over the window of the receiver)",
        ),
        "Condition I: the segment begins beyond everything that its receiver ever granted, from 6.1 on by more than a"
        " window.",
        always(Became.INVALID),
        _WINDOW,
        cases=("beyond-window", "first-invalid-byte", "client-beyond-window", "reset-out-of-window", "without-nat"),
        fixes=_BOTH,
    ),
    Reason(
        "seq-over-by-less-than-a-window",
        "TCP",
        _of_window("%u bytes more than expected", ""),
        "Condition I as well, but the segment ends no more than a window beyond what was granted. Up to 6.0 it is"
        " INVALID, in the words for all that is over the upper bound.",
        MILDLY,
        _WINDOW,
        cases=("last-ignored-byte",),
        fixes=_BOTH,
    ),
    Reason(
        "seq-under",
        "TCP",
        _of_window(
            "SEQ is under lower bound %u (already ACKed data retransmitted)",
            "SEQ is under the lower bound (already ACKed data retransmitted)",
        ),
        "Condition II: the segment ends more than a window behind what its sender had sent: a late duplicate.",
        MILDLY,
        _WINDOW,
        cases=("upstream-regression", "far-behind", "client-on-node-behind"),
        fixes=_BOTH,
    ),
    Reason(
        "ack-over",
        "TCP",
        _of_window(
            "ACK is over upper bound %u (ACKed data not seen yet)",
            "ACK is over the upper bound (ACKed data not seen yet)",
        ),
        "Condition III: the segment acknowledges, or by SACK claims to have got, what this node has not seen yet: the"
        " other direction takes another way, or the entry's window is out of step.",
        always(Became.INVALID),
        _WINDOW,
        cases=("ack-above", "sack-beyond"),
        fixes=_BOTH,
    ),
    Reason(
        "ack-under",
        "TCP",
        _of_window(
            "ignored ACK under lower bound %u (possible overly delayed)",
            "ACK is under the lower bound (possible overly delayed ACK)",
        ),
        "Condition IV: the acknowledgement is older than the sender's largest window, and than 66,000 bytes: it was"
        " long on its way.",
        MILDLY,
        _WINDOW,
        cases=("ack-below",),
        fixes=_BOTH,
    ),
    Reason(
        "window-bug",
        "TCP",
        (Wording("BUG", "up to 6.0", Behaviour.STRICT, not_from=(6, 1)),),
        "Out of the window by none of the four conditions, which the kernel itself takes for a bug of its own.",
        always(Became.INVALID),
        _WINDOW,
        why_no_case="no packet does it: the conditions that are tested are those that are named",
        fixes=_BOTH,
    ),
)

_BY_STATE: Final = (
    Reason(
        "state-ignored",
        "TCP",
        (
            Wording("packet (index %d) in dir %d ignored, state %s", "from 5.18 on, or earlier", not_until=(5, 10)),
            Wording("invalid packet ignored in state %s ", "5.10", not_from=(5, 18)),
        ),
        "By the table of states the packet may be right or wrong, so its receiver is to decide: a SYN of the client or"
        " a SYN,ACK of the server on a connection that is established, or an ACK of the server while the entry waits"
        " for its SYN,ACK.",
        always(Became.IGNORED),
        f"{_FILE}, nf_conntrack_tcp_packet (sIG of tcp_conntracks)",
        cases=("syn-ack-again", "syn-from-client", "port-reused-challenged", "port-reused-after-server-reset"),
    ),
    Reason(
        "state-invalid",
        "TCP",
        (
            Wording("packet (index %d) in dir %d invalid, state %s", "from 6.1 on, or earlier", not_until=(5, 18)),
            Wording("invalid state", "5.10 and 5.18", not_from=(6, 1)),
        ),
        "By the table of states there is no such packet: a SYN of the server on a connection that is established, or"
        " an ACK of the client while the entry waits for a SYN,ACK, whose answer then takes another way.",
        always(Became.INVALID),
        f"{_FILE}, nf_conntrack_tcp_packet (sIV of tcp_conntracks)",
        cases=("syn-from-server", "syn-from-server-in-close", "asymmetric-route-clients-half"),
        fixes=_DROP,
    ),
    Reason(
        "challenge-ack",
        "TCP",
        (Wording("challenge-ack ignored"),),
        "An ACK that answers a SYN which was let through in LAST_ACK: the server's challenge (RFC 5961), which must not"
        " be taken for the acknowledgement of the last FIN.",
        always(Became.IGNORED),
        f"{_FILE}, nf_conntrack_tcp_packet",
        cases=("last-ack-challenged",),
    ),
    Reason(
        "invalid-rst",
        "TCP",
        (Wording("invalid rst"),),
        "A RST whose number is behind what its receiver has acknowledged: no stack would take it, and it leaves the"
        " entry as it is. nf_conntrack_tcp_ignore_invalid_rst=1 (from 5.14 on) lets it through.",
        always(Became.INVALID),
        f"{_FILE}, nf_conntrack_tcp_packet",
        cases=("reset-behind", "egress-late-reset"),
        fixes=_DROP,
    ),
    Reason(
        "invalid-new",
        "TCP",
        (Wording("invalid new", "from 6.12 on, or earlier; 6.1 says nothing", not_until=(6, 1)),),
        "A packet that belongs to no entry and may make none: a RST, a SYN,ACK or a FIN. Foremost it is the client's"
        " own RST against a packet that leaked: the second INVALID packet of each reset.",
        always(Became.INVALID),
        f"{_FILE}, tcp_new",
        cases=("asymmetric-route", "egress-fin-unknown", "beyond-window", "entry-deleted-strictly"),
        fixes=_DROP,
    ),
    Reason(
        "lowered-timeout",
        "TCP",
        (
            Wording("lowered timeout to UNACK", "Debian's 6.1.192, 6.12.118 and 7.3.4"),
            Wording(
                "packet (index %d, dir %d) response for index %d lower timeout to %u", "6.1 to 6.18", not_from=(7, 3)
            ),
        ),
        "A FIN or RST out of the window answers one of the other side that was out of the window too: both ends know"
        " better than the entry, whose timeout becomes that of UNACK (300 s). What was wrong with the packet itself is"
        " in the line before.",
        always(Became.INVALID),
        f"{_FILE}, nf_tcp_handle_invalid",
        why_no_case="two packets out of the window would have to answer each other",
        fixes=_BOTH,
    ),
)

_BY_HEADER: Final = (
    Reason(
        "tcp-truncated",
        "TCP",
        (Wording("truncated packet"),),
        "The header is cut, or says that it is longer than the packet.",
        always(Became.INVALID),
        f"{_FILE}, tcp_error",
        cases=("truncated-header",),
        fixes=_DROP,
    ),
    Reason(
        "tcp-checksum",
        "TCP",
        (Wording("bad checksum"),),
        "The checksum is wrong. It is looked at where nf_conntrack_checksum=1, in PREROUTING alone.",
        always(Became.INVALID),
        f"{_FILE}, tcp_error",
        cases=("bad-checksum",),
        fixes=_DROP,
    ),
    Reason(
        "tcp-flags",
        "TCP",
        (Wording("invalid tcp flag combination"),),
        "No stack sends these flags together, or the packet has none of SYN, RST and ACK.",
        always(Became.INVALID),
        f"{_FILE}, tcp_error (tcp_valid_flags)",
        cases=("syn-fin", "no-ack-flag", "fin-psh-urg", "fin-rst-ack", "syn-ack-urg", "flag-sets"),
        fixes=_DROP,
    ),
    Reason(
        "tcp-unknown-strictly",
        "TCP",
        (),
        "A packet of the middle of a connection that has no entry, where nf_conntrack_tcp_loose=0. With the default, 1,"
        " it is NEW and an entry is made of it.",
        always(Became.INVALID),
        f"{_FILE}, tcp_new",
        why_no_case="entry-deleted-strictly and picked-up-strictly make such packets, and newer kernels say"
        " `invalid new` of them",
        fixes=_DROP,
    ),
)

REASONS: Final = (*_BY_WINDOW, *_BY_STATE, *_BY_HEADER)
