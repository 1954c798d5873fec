# SPDX-License-Identifier: MIT
"""Every reason that conntrack gives for not liking a packet, on old and on new kernels: a table, and a look into it."""

from __future__ import annotations

from typing import Final

from lab.reasons import others, tcp
from lab.reasons.reason import Became, Reason, Wording

__all__ = ["REASONS", "Became", "Reason", "Wording", "find"]

#: The whole table, TCP first.
REASONS: Final = (*tcp.REASONS, *others.REASONS)

#: The numbers in `nf_ct_proto_6: ...`, of the protocols that have reasons of their own (IANA, protocol numbers).
PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 33: "DCCP", 58: "ICMPv6", 132: "SCTP", 136: "UDPLite"}


def find(text: str, protocol: int | None = None) -> tuple[Reason, Wording] | None:
    """Return the reason that a text is, and which wording of it; None where conntrack says no such thing.

    :param text: the reason alone, without ``nf_ct_proto_6: ``.
    :param protocol: the number in that; where it is given, reasons of other protocols do not count.
    """
    found = [(one, wording) for one in REASONS if (wording := one.wording(text.strip())) is not None]
    if protocol is None:
        return found[0] if found else None
    name = PROTOCOLS.get(protocol, "")
    # An ICMP error is read by one function for both families.
    for wanted in (name, "any", *(("ICMP",) if name == "ICMPv6" else ())):
        for one, wording in found:
            if one.protocol == wanted:
                return one, wording
    return None
