# SPDX-License-Identifier: MIT
"""The trace of iptables-legacy's rules: what it logs of a packet that is traced becomes events like those of nftables.

The kernel logs each rule that matched as ``TRACE: table:chain:rule:number``, without a verdict: the rule says it
(trace_packet in net/ipv4/netfilter/ip_tables.c). That a rule is told as ``return`` or ``policy`` means nothing where it
is one without conditions, so its number counts.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lab.conntrack.nflog import TRACED, Record
from lab.errors import LabError, MissingError
from lab.evidence.packet import is_fragment
from lab.evidence.traced import LEGACY, Rules, Told, TraceEvent
from lab.evidence.walk import ACCEPT, DROP, kin
from lab.netns.features import require
from lab.netns.xtables import legacy_tables
from lab.vocabulary import Backend

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.fabric.loaded import Loaded
    from lab.vocabulary import Family

#: What the lab's first rule logs, so that one packet is told from the next.
MARK: Final = f"{TRACED}lab:begin:rule:1"

_RULE: Final = re.compile(rf"{TRACED}(\w+):(\S+):(?:rule|return|policy):(\d+)")
_TARGET: Final = re.compile(r"(?:^| )-([jg]) (\S+)")
_HEADERS: Final = 80  # bytes; more than both headers have

# Of iptables-extensions(8): what ends a table's walk, and what goes on.
_VERDICTS: Final = {
    **dict.fromkeys(("ACCEPT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "TPROXY"), ACCEPT),
    **dict.fromkeys(("DROP", "REJECT", "SYNPROXY"), DROP),
    **dict.fromkeys(("QUEUE", "NFQUEUE"), "queue"),
    "RETURN": "return",
}

#: The order in which hooks come: a packet begins at one of the first.
_ORDER: Final = {"ingress": 0, "prerouting": 1, "output": 1, "input": 2, "forward": 2, "postrouting": 3, "egress": 4}


def is_told(host: RunningHost, family: Family) -> bool:
    """Check whether iptables-legacy has rules on a host, or will have the lab's own, so that its log is to be read."""
    return host.host.backend is Backend.LEGACY or bool(legacy_tables(host.namespace, family.version))


def by_packet(records: Iterable[Record]) -> list[list[Record]]:
    """Return the records of each packet, in the order in which they came, each with the lab's own before them.

    Of one that comes in fragments that is the whole, without the lab's own. Two processors log in between each other:
    a record is of the last packet that is like its own.
    """
    packets: list[list[Record]] = []
    last: dict[tuple[object, ...] | None, list[Record]] = {}
    for record in records:
        like = kin(record.packet) if record.packet else None
        if record.words == MARK and is_fragment(record.data):
            continue
        if record.words == MARK or like not in last:
            packets.append([])
            last[like] = packets[-1]
        last[like].append(record)
    return packets


def why_silent(node: str, loaded: Loaded, records: Iterable[Record]) -> str:
    """Return in a sentence why iptables-legacy has logged nothing at a node that has its rules; empty where it has."""
    if not loaded.is_legacy or any(record.words != MARK for record in records):
        return ""
    try:
        require("xt_TRACE")
        words = "the kernel told nothing of them"
    except MissingError as error:
        words = str(error)
    return f"iptables-legacy's rules at {node}: {words}; by iptables-nft (--backend nft) they are traced"


def of_each(told: Iterable[Told], records: Sequence[Record]) -> list[Sequence[Record]]:
    """Return what was logged of each packet that was told of; nothing of a bridge's copies, nor before prerouting."""
    if not records:
        return [() for _one in told]
    packets: dict[tuple[object, ...] | None, deque[list[Record]]] = defaultdict(deque)
    for of_packet in by_packet(records):
        first = of_packet[0].packet
        packets[kin(first) if first else None].append(of_packet)
    found = (None if one.is_copy or one.is_early else packets[kin(one.packet)] for one in told)
    return [its_own.popleft() if its_own else () for its_own in found]


def whole(told: Told, records: Sequence[Record], loaded: Loaded, family: Family, *, is_sure: bool) -> Told:
    """Return what was told of a packet, by nftables and by iptables-legacy.

    :param is_sure: whether iptables-legacy tells of its rules at all.
    :raises LabError: it has not told all of it.
    """
    if told.is_copy or told.is_early or not loaded.is_legacy:
        return told
    if not records:
        if is_sure:
            raise LabError("iptables-legacy told nothing of it")
        return told
    events = list(events_of(records, loaded, f"{LEGACY}{family.nft}"))
    # Every packet that comes to its end has come to a chain of the table filter.
    asked = not told.end or "filter" not in loaded.legacy_tables or any(event.table == "filter" for event in events)
    if is_sure and not asked:
        raise LabError("iptables-legacy did not tell all of it")
    return replace(told, events=merged(told.events, events, loaded))


def events_of(records: Sequence[Record], loaded: Loaded, family: str) -> Iterator[TraceEvent]:
    """Yield an event for each rule or policy that a packet's records tell of."""
    is_over = True  # the next record is the first of a base chain
    # A rule is logged before it does what it does: the mark that it sets is told by the next one.
    for record, following in zip(records, [*records[1:], None], strict=True):
        said = _said(record.words)
        if said is None or record.words == MARK:
            continue
        table, chain, number = said
        rules = loaded.chain(family, table, chain).rules
        rule = rules[number - 1] if number <= len(rules) else None
        if rule is not None:
            verdict, target = _verdict(rule.text, loaded.names(family, table))
        else:
            policy = loaded.policy(family, table, chain)
            verdict, target = policy or "return", ""
        yield TraceEvent(
            0,
            family,
            table,
            chain,
            None,
            rule is None and verdict in (ACCEPT, DROP),
            verdict,
            target,
            (following or record).mark,
            record.data[:_HEADERS] if is_over else b"",
            number if rule is not None else None,
        )
        is_over = verdict in (ACCEPT, DROP, "queue")


@lru_cache(4096)
def _said(words: str) -> tuple[str, str, int] | None:
    """Return the table, the chain and the number of a rule that a record tells of; None where it tells of none."""
    said = _RULE.match(words)
    return (said[1], said[2], int(said[3])) if said else None


@lru_cache(4096)
def _verdict(rule: str, chains: frozenset[str]) -> tuple[str, str]:
    """Return what a rule does with what it matches, and the chain that it leads to."""
    target = _TARGET.search(rule)
    if target is None:
        return "continue", ""
    if target[2] in chains:
        return ("jump" if target[1] == "j" else "goto"), target[2]
    return _VERDICTS.get(target[2], "continue"), ""


def merged(events: Sequence[TraceEvent], others: Iterable[TraceEvent], rules: Rules) -> tuple[TraceEvent, ...]:
    """Return the events of a packet from both sources, by hook and priority."""
    groups: list[list[TraceEvent]] = []
    for event in (*events, *others):
        if event.headers:
            groups.append([])
        if groups:
            groups[-1].append(event)

    def place(group: list[TraceEvent]) -> tuple[int, int]:
        family = group[0].family
        hook, priority = rules.base(family, group[0].table, group[0].chain)
        if family == "bridge":  # a bridge calls the hooks of IP from its own
            hook = {"prerouting": "ingress", "postrouting": "egress"}.get(hook, hook)
        return _ORDER.get(hook, 0), priority

    return tuple(event for group in sorted(groups, key=place) for event in group)
