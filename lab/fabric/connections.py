# SPDX-License-Identifier: MIT
"""The TCP connections that people have in a lab, by their ends before and after each translation on the way."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from lab.conntrack.flows import Flows
from lab.evidence.packet import TCP, Ends, SocketAddress
from lab.netns.sockdiag import connected

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lab.fabric.host import RunningHost


def connections(hosts: Collection[RunningHost], but: Ends | None = None) -> frozenset[Ends]:
    """Return source and destination of both directions of each connection.

    :param but: source and destination of one that is left out.
    """
    translations = [ends for host in hosts if host.host.proxy_mode is not None for ends in _translations(host)]
    found: set[Ends] = set()
    for host in hosts:
        with suppress(OSError):  # a kernel that tells of no sockets: nothing is known of them
            for one in connected(host.namespace):
                own, peer = SocketAddress(*one.own), SocketAddress(*one.peer)
                found |= {(own, peer), (peer, own)}
    spared = _followed({but, but[::-1]}, translations) if but else set()
    return frozenset(_followed(found, translations) - spared)


def _translations(host: RunningHost) -> Iterable[tuple[Ends, Ends]]:
    """Yield the ends of the first direction of a node's TCP entries, before and after translation."""
    for flow in Flows(host.namespace):
        if flow.number == TCP:
            yield flow.original.ends, flow.reply.ends[::-1]


def _followed(found: set[Ends], translations: Iterable[tuple[Ends, Ends]]) -> set[Ends]:
    """Return ends with what nodes on the way make of them, one node after another."""
    by_end: dict[Ends, set[Ends]] = {}
    for one, other in translations:
        for a, b in ((one, other), (one[::-1], other[::-1])):
            by_end.setdefault(a, set()).add(b)
            by_end.setdefault(b, set()).add(a)
    grown, new = set(found), list(found)
    while new:
        further = by_end.get(new.pop(), set()) - grown
        grown |= further
        new += further
    return grown
