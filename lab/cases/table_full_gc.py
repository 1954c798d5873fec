# SPDX-License-Identifier: MIT
"""The table is full, and the garbage collector makes room: a half-closed connection is evicted while it lives."""

from __future__ import annotations

from contextlib import closing
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.scenario import ConnectionScenario
from lab.traffic.tcp import datagram_socket
from lab.verdict import Outcome

_DISCARD: Final = 9  # RFC 863
_HOUR: Final = 3600  # seconds, by kube-proxy; the kernel's own 60 could be what ends it
_CYCLE: Final = 180.0  # seconds; the collector starts a round every minute at the latest (GC_SCAN_INTERVAL_MAX)


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.half_close()
    scenario.expect_entry(state="CLOSE_WAIT", timeout=range(_HOUR - 60, _HOUR + 1), assured=True)
    scenario.fill_table()
    own, server = (
        SocketAddress(end.own_address.address, _DISCARD) for end in (scenario.client_end, scenario.server_end)
    )
    with closing(datagram_socket(scenario.lab.hosts[scenario.roles.client].namespace, own, server)) as newcomer:
        newcomer.send(b"no room")
        await scenario.barrier()
    scenario.expect_counter("drop", 1)
    await scenario.until(lambda: scenario.entry() is None, "the garbage collector to evict the entry", within=_CYCLE)
    await scenario.server_speaks()
    await scenario.go_on()


CASE: Final = Case(
    name="table-full-gc",
    title="the table is full, a half-closed connection is evicted from it, and the server answers",
    story=(
        "Once the full table has refused a packet, the garbage collector's next round, a minute later at most, evicts"
        " connections that are about to close, wherever a table is over 95 % full. A client that has sent its whole"
        " request and shut down its side is one of them, though the server is still at work on the answer. The answer"
        " is NEW, leaks and is answered by a RST, whatever the fix: this is how capacity kills."
    ),
    threads=(
        "kubernetes/kubernetes#18604",
        "net/netfilter/nf_conntrack_core.c (gc_worker, c6dd940b1f74)",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
    slow=True,
)
