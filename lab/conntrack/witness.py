# SPDX-License-Identifier: MIT
"""What conntrack made of every packet: rules of the lab's that only count and log (the counting rules).

A reason in the kernel's log never means INVALID by itself: from Linux 6.1 on, packets that are ignored
(let through and translated) are logged with a reason too. The state that rules see is the verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from lab.conntrack.nflog import LOCAL_GROUP, REASON_GROUP, TRACED, WITNESS_GROUP, Record
from lab.evidence.judgement import Judged
from lab.evidence.packet import Ends
from lab.netns import Namespace, Nft, nft_state

#: What conntrack calls a packet, in nft's words.
STATES: Final = ("new", "established", "related", "invalid", "untracked")
#: The witness's own table.
TABLE: Final = "lab_witness"

# After conntrack (-200) and before mangle (-150) and DNAT (-100): nf_ip_hook_priorities.
_PRIORITY: Final = -190


# Behind the translation of what comes to the host itself (100): there a packet is as its socket will see it.
_LOCAL_PRIORITY: Final = 200


def load_conntrack(nft: Nft) -> None:
    """Have the kernel load conntrack, whose sysctls are set next: on a fresh machine no rule has asked for it yet."""
    if not Path("/proc/sys/net/netfilter/nf_conntrack_log_invalid").exists():
        nft.run("table inet lab_loads_conntrack {\nchain state {\nct state new\n}\n}\n")
        nft.run("delete table inet lab_loads_conntrack\n")


def passing_by(most: int, connections: Collection[Ends]) -> tuple[str, ...]:
    """Return the rules by which what is others' is neither logged nor counted.

    :param most: bytes of a packet; longer ones are somebody's download.
    :param connections: TCP connections that are others', as the ends of each direction.
    """
    rules = [f"meta length > {most} accept"]
    for family, is_ipv6 in (("ip", False), ("ip6", True)):
        theirs = [
            f"{one.address} . {other.address} . {one.port} . {other.port}"
            for one, other in connections
            if (":" in one.address) == is_ipv6
        ]
        if theirs:
            ends = f"{family} saddr . {family} daddr . tcp sport . tcp dport"
            rules.append(f"{ends} {{ {', '.join(theirs)} }} accept")
    return tuple(rules)


def script(logged: Collection[str] = STATES, passing: Sequence[str] = ()) -> str:
    """Return the nftables script that sets the counting rules up in a namespace.

    :param logged: the states whose packets are logged; all are counted.
    :param passing: rules that come before, such as :func:`passing_by` makes.
    """
    lines = [f"table inet {TABLE} {{"]
    lines += [f"counter {state} {{\n}}" for state in STATES]
    for hook in ("prerouting", "output"):
        lines += [f"chain {hook} {{", f"type filter hook {hook} priority {_PRIORITY}; policy accept;"]
        lines += passing
        for state in STATES:
            log = f' log prefix "{state}" group {WITNESS_GROUP}' if state in logged else ""
            lines.append(f'ct state {state} counter name "{state}"{log}')
        lines.append("}")
    return "\n".join([*lines, "}", ""])


def local_script(passing: Sequence[str] = ()) -> str:
    """Return the nftables script that shows what a node gives to its own sockets: no capture sees that.

    :param passing: as :func:`script` takes it.
    """
    rules = (*passing, f"log group {LOCAL_GROUP}")
    return "\n".join(
        (
            f"add chain inet {TABLE} local {{ type filter hook input priority {_LOCAL_PRIORITY}; policy accept; }}",
            *(f"add rule inet {TABLE} local {rule}" for rule in rules),
            "",
        )
    )


def removal() -> str:
    """Return the nftables script that takes all of it away."""
    return f"delete table inet {TABLE}\n"


def counters(namespace: Namespace) -> dict[str, int]:
    """Return how many packets were counted in each state."""
    return nft_state.counters(namespace, TABLE)


class Pairing:
    """Joins the kernel's reason for a packet with the state that the counting rules log after it.

    :param host: whose log it is.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._reasons: dict[bytes, Record] = {}

    def take(self, records: Iterable[Record]) -> list[Judged]:
        """Return the packets that the records judge."""
        judged = []
        for record in records:
            if record.words.startswith(TRACED):
                continue
            if record.group == REASON_GROUP:
                self._reasons[record.data] = record
            elif record.group == WITNESS_GROUP and record.packet is not None:
                reason = self._reasons.pop(record.data, None)
                words = _tidy(reason.words) if reason else ""
                judged.append(Judged(self.host, record.time, record.packet, record.words, words))
        return judged

    def let_through(self) -> list[Judged]:
        """Return the packets with a reason and no state: ignored ones, where INVALID ones alone are logged."""
        return [
            Judged(self.host, reason.time, reason.packet, "established", _tidy(reason.words))
            for reason in self._reasons.values()
            if reason.packet is not None
        ]


def _tidy(reason: str) -> str:
    # The kernel writes "nf_ct_proto_6: SEQ is over ... "; the number is the protocol's.
    _prefix, found, rest = reason.partition(": ")
    return (rest if found and reason.startswith("nf_ct_proto_") else reason).strip()
