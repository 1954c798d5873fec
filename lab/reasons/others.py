# SPDX-License-Identifier: MIT
"""The reasons of the other trackers and of conntrack's core: net/netfilter/nf_conntrack_{core,helper,proto_*}.c.

The trackers of GRE and of protocols that are not known (``generic``) find nothing INVALID.
"""

from __future__ import annotations

from typing import Final

from lab.reasons.reason import Became, Reason, Wording, always

_DROP: Final = ("drop-forward",)
_NO_UDP_CASE: Final = "the catalogue's cases of UDP are about entries, not about broken packets"
_NO_ICMP_CASE: Final = "the catalogue's cases of ICMP send whole packets"
_NO_SCTP_CASE: Final = "the catalogue has no case of SCTP"
_NO_OTHER_CASE: Final = "kube-proxy knows no Service of this protocol"

_UDP: Final = tuple(
    Reason(
        name,
        "UDP",
        (Wording(text),),
        meaning,
        always(Became.INVALID),
        "nf_conntrack_proto_udp.c, udp_error",
        cases,
        "" if cases else _NO_UDP_CASE,
        _DROP,
    )
    for name, text, meaning, cases in (
        ("udp-short", "short packet", "The header is cut.", ()),
        (
            "udp-truncated",
            "truncated/malformed packet",
            "The length in the header is more than the packet has, or less than a header.",
            (),
        ),
        (
            "udp-checksum",
            "bad checksum",
            (
                "The checksum is wrong, and not 0, which would mean that there is none; as of tunnels whose card"
                " computes it wrongly. It is looked at where nf_conntrack_checksum=1, in PREROUTING alone."
            ),
            ("vxlan-wrong-checksum",),
        ),
    )
)

_UDPLITE: Final = tuple(
    Reason(
        name,
        "UDPLite",
        (Wording(text, "up to 6.18; 7.3 has no UDPLite", not_from=(7, 3)),),
        meaning,
        always(Became.INVALID),
        "nf_conntrack_proto_udp.c, udplite_error",
        (),
        _NO_OTHER_CASE,
        _DROP,
    )
    for name, text, meaning in (
        ("udplite-short", "short packet", "The header is cut."),
        ("udplite-coverage", "invalid checksum coverage", "The checksum is said to cover more than the packet has."),
        ("udplite-no-checksum", "checksum missing", "The checksum is 0, which UDPLite forbids."),
        ("udplite-checksum", "bad checksum", "The checksum is wrong."),
    )
)

_QUOTED: Final = (
    "An ICMP error that quotes a connection of this node, but was sent to another host than the one that sent what it"
    " quotes: forged, or translated on one half of its way."
)

_ICMP: Final = (
    *(
        Reason(
            name,
            "ICMP",
            (Wording(text),),
            meaning,
            always(Became.INVALID),
            "nf_conntrack_proto_icmp.c, nf_conntrack_icmpv4_error",
            (),
            _NO_ICMP_CASE,
            _DROP,
        )
        for name, text, meaning in (
            ("icmp-short", "short packet", "The header is cut."),
            ("icmp-checksum", "bad hw icmp checksum", "The checksum is wrong."),
            ("icmp-type", "invalid icmp type", "A type above 18, which RFC 1122 (3.2.2) has hosts discard."),
        )
    ),
    Reason(
        "icmp-other-host",
        "ICMP",
        (Wording("outer daddr %pI4 != inner %pI4"), Wording("outer daddr %pI6 != inner %pI6", "for IPv6")),
        _QUOTED,
        always(Became.INVALID),
        "nf_conntrack_proto_icmp.c, nf_conntrack_inet_error",
        why_no_case=_NO_ICMP_CASE,
        fixes=_DROP,
    ),
    Reason(
        "icmp-unknown",
        "ICMP",
        (),
        "An ICMP error that quotes a packet of no connection of this node. Counted as `error`, not as `invalid`.",
        always(Became.INVALID),
        "nf_conntrack_proto_icmp.c, nf_conntrack_inet_error",
        cases=("icmp-error-without-entry",),
        fixes=_DROP,
    ),
    Reason(
        "icmp-unasked",
        "ICMP",
        (),
        "An answer that nobody asked for, such as an echo reply whose request took another way.",
        always(Became.INVALID),
        "nf_conntrack_proto_icmp.c, nf_conntrack_icmp_packet",
        why_no_case=_NO_ICMP_CASE,
        fixes=_DROP,
    ),
)

_ICMPV6: Final = tuple(
    Reason(
        name,
        "ICMPv6",
        (Wording(text),),
        meaning,
        always(Became.INVALID),
        "nf_conntrack_proto_icmpv6.c, nf_conntrack_icmpv6_error",
        (),
        _NO_ICMP_CASE,
        _DROP,
    )
    for name, text, meaning in (
        ("icmpv6-short", "short packet", "The header is cut."),
        ("icmpv6-checksum", "ICMPv6 checksum failed", "The checksum is wrong."),
        ("icmpv6-redirect-short", "short redirect", "A redirect that is cut."),
        (
            "icmpv6-redirect-from-afar",
            "invalid saddr or hoplimit for redirect",
            (
                "A redirect that no neighbour sent: from no link-local address, or with a hop limit below 255"
                " (RFC 4861, 8.1)."
            ),
        ),
        (
            "icmpv6-redirect-without-options",
            "redirect without options",
            "A redirect that does not quote the packet that caused it.",
        ),
    )
)

_SCTP: Final = tuple(
    Reason(
        name,
        "SCTP",
        wordings,
        meaning,
        always(Became.INVALID),
        f"nf_conntrack_proto_sctp.c, {function}",
        (),
        _NO_SCTP_CASE,
        _DROP,
    )
    for name, wordings, meaning, function in (
        ("sctp-short", (Wording("nf_ct_sctp: short packet "),), "The header is cut.", "sctp_error"),
        (
            "sctp-no-header",
            (Wording("nf_ct_sctp: failed to read header "),),
            "The header could not be brought into one piece.",
            "sctp_error",
        ),
        ("sctp-crc", (Wording("nf_ct_sctp: bad CRC "),), "The checksum (CRC-32c) is wrong.", "sctp_error"),
        (
            "sctp-tag",
            (
                Wording(
                    "verification tag check failed %x vs %x for dir %d",
                    "from 6.1 on; 5.10 says nothing",
                    not_until=(5, 10),
                ),
            ),
            "The verification tag is not the association's (RFC 9260, 8.5): of an older one, or the peer began anew.",
            "nf_conntrack_sctp_packet",
        ),
        (
            "sctp-state",
            (Wording("Invalid, old_state %d, dir %d, type %d", "from 6.1 on; 5.10 says nothing", not_until=(5, 10)),),
            "By the table of states there is no such chunk in this state of the association.",
            "nf_conntrack_sctp_packet",
        ),
        (
            "sctp-unknown",
            (),
            "A chunk that belongs to no association and may begin none.",
            "sctp_new",
        ),
    )
)

_DCCP: Final = tuple(
    Reason(
        name,
        "DCCP",
        (Wording(text, "up to 6.12; 6.18 has no DCCP", not_from=(6, 18)),),
        meaning,
        always(became),
        f"nf_conntrack_proto_dccp.c, {function}",
        (),
        _NO_OTHER_CASE,
        () if became is Became.IGNORED else _DROP,
    )
    for name, text, meaning, became, function in (
        (
            "dccp-not-picked-up",
            "not picking up existing connection ",
            "A packet of the middle of a connection, where nf_conntrack_dccp_loose=0.",
            Became.INVALID,
            "dccp_new",
        ),
        (
            "dccp-transition",
            "invalid state transition ",
            "By the table of states there is no such packet in this state.",
            Became.INVALID,
            "dccp_new, nf_conntrack_dccp_packet",
        ),
        (
            "dccp-ignored",
            "invalid packet",
            "By the table of states the packet may be right or wrong, so its receiver is to decide.",
            Became.IGNORED,
            "nf_conntrack_dccp_packet",
        ),
        (
            "dccp-truncated",
            "nf_ct_dccp: truncated/malformed packet ",
            "The header's length is more than the packet has, or less than a header.",
            Became.INVALID,
            "dccp_error",
        ),
        (
            "dccp-coverage",
            "nf_ct_dccp: bad checksum coverage ",
            "The checksum is said to cover more than the packet has.",
            Became.INVALID,
            "dccp_error",
        ),
        ("dccp-checksum", "nf_ct_dccp: bad checksum ", "The checksum is wrong.", Became.INVALID, "dccp_error"),
        ("dccp-type", "nf_ct_dccp: reserved packet type ", "No such type exists.", Became.INVALID, "dccp_error"),
        (
            "dccp-sequence",
            "nf_ct_dccp: type lacks 48bit sequence numbers",
            "Packets of this type must have the long sequence numbers.",
            Became.INVALID,
            "dccp_error",
        ),
    )
)

_CORE: Final = (
    Reason(
        "table-full",
        "any",
        (
            Wording("nf_conntrack: table full, dropping packet"),
            Wording(
                "nf_conntrack: table full in netns %u, dropping packet",
                "from 6.17 on, in namespaces",
                not_until=(6, 16),
            ),
        ),
        "A packet that needs a new entry, and there are nf_conntrack_max of them. Connections that have one go on.",
        always(Became.DROPPED),
        "nf_conntrack_core.c, __nf_conntrack_alloc",
        cases=("table-full-new-connection",),
        in_log=False,
    ),
    Reason(
        "expectations-full",
        "any",
        (Wording("nf_conntrack: expectation table full"),),
        "A helper (FTP, SIP, ...) expects a connection, and there is no room to remember it.",
        always(Became.DROPPED),
        "nf_conntrack_expect.c, __nf_ct_expect_check",
        why_no_case="kube-proxy uses no helpers",
        in_log=False,
    ),
    Reason(
        "helper",
        "any",
        (
            Wording("helper %s dropping packet: %pV ", "7.3", not_until=(6, 18)),
            Wording("nf_ct_%s: dropping packet: %pV", "up to 6.18", not_from=(7, 3)),
        ),
        "A helper (FTP, SIP, TFTP, ...) cannot read what it is to translate, or has no room for what it expects.",
        always(Became.DROPPED),
        "nf_conntrack_helper.c, nf_ct_helper_log",
        why_no_case="kube-proxy uses no helpers",
    ),
    Reason(
        "no-tuple",
        "any",
        (),
        "The header is too short to have ports, or the packet is a fragment that came alone.",
        always(Became.INVALID),
        "nf_conntrack_core.c, resolve_normal_ct (nf_ct_get_tuple)",
        why_no_case="hosts drop such packets themselves",
        fixes=_DROP,
    ),
)

REASONS: Final = (*_UDP, *_UDPLITE, *_ICMP, *_ICMPV6, *_SCTP, *_DCCP, *_CORE)
