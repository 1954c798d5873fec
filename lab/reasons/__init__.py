# SPDX-License-Identifier: MIT
"""Every reason that conntrack gives for not liking a packet, on old and on new kernels: a table, and a look into it."""

from __future__ import annotations

import re
from typing import Final

from lab.reasons import others, tcp
from lab.reasons.reason import Became, Reason, Release, Wording

__all__ = ["REASONS", "Became", "Reason", "Release", "Wording", "find"]

#: The whole table, TCP first.
REASONS: Final = (*tcp.REASONS, *others.REASONS)

#: The numbers in `nf_ct_proto_6: ...`, of the protocols that have reasons of their own (IANA, protocol numbers).
PROTOCOLS: Final = {1: "ICMP", 6: "TCP", 17: "UDP", 33: "DCCP", 58: "ICMPv6", 132: "SCTP", 136: "UDPLite"}


#: All that have the same words, by these.
_BY_WORDS: Final[dict[str, list[tuple[Reason, Wording]]]] = {}
for _one in REASONS:
    for _wording in _one.wordings:
        _BY_WORDS.setdefault(_wording.pattern.pattern, []).append((_one, _wording))
_ANY: Final = re.compile("|".join(f"(?P<g{number}>{words})" for number, words in enumerate(_BY_WORDS)))
_LISTS: Final = {f"g{number}": found for number, found in enumerate(_BY_WORDS.values())}


def find(text: str, protocol: int | None = None) -> tuple[Reason, Wording] | None:
    """Return the reason that a text is, and which wording of it; None where conntrack says no such thing.

    :param text: the reason alone, without ``nf_ct_proto_6: ``.
    :param protocol: the number in that; where it is given, reasons of other protocols do not count.
    """
    match = _ANY.fullmatch(text.strip())
    found = _LISTS[match.lastgroup or ""] if match else []
    if protocol is None:
        return found[0] if found else None
    name = PROTOCOLS.get(protocol, "")
    # An ICMP error is read by one function for both families.
    for wanted in (name, "any", *(("ICMP",) if name == "ICMPv6" else ())):
        for one, wording in found:
            if one.protocol == wanted:
                return one, wording
    return None
