# SPDX-License-Identifier: MIT
"""The entry is gone where conntrack picks nothing up: the fix turns a reset into a hang."""

from __future__ import annotations

from typing import Final

from lab.cases.case import RESET, Case, always, on_every_kernel, row
from lab.cases.demands import no_way_to_service
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome

LOOSE: Final = "net/netfilter/nf_conntrack_tcp_loose"


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.set_node_sysctl(LOOSE, 0)
    scenario.forget_entry()
    scenario.expect_no_entry()
    await scenario.server_speaks()
    if scenario.unheard:
        await scenario.retransmissions(2)


async def _steps_client_first(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.set_node_sysctl(LOOSE, 0)
    scenario.forget_entry()
    await scenario.client_speaks()
    scenario.expect(
        "no way to the VIP: the node says so by ICMP, unless a rule dropped the segment",
        scenario.unreachable != bool(scenario.dropped()),
    )
    soft = scenario.client_end.soft_error
    scenario.expect("ENETUNREACH of the client's socket, once", (soft == "ENETUNREACH") == scenario.unreachable, soft)
    await scenario.retransmissions(1)
    scenario.expect_no_entry()


CASE: Final = Case(
    name="entry-deleted-strictly",
    title="the entry is deleted, nf_conntrack_tcp_loose=0, and the server sends next",
    story=(
        "With that sysctl conntrack takes up no connection in its middle, so the server's segment is INVALID. "
        "Without the drop it leaks and the client's RST kills; with the drop the server sends it again and "
        "again, and the connection hangs until its timers end it. Being liberal is about the window of an "
        "entry, and there is none."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "Documentation/networking/nf_conntrack-sysctl.rst",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(row(RESET, Expectation(Judgement.INVALID, Outcome.STALLED), RESET)),
)

_CLIENT_FIRST: Final = Case(
    name="entry-deleted-strictly-client-first",
    title="the entry is deleted, nf_conntrack_tcp_loose=0, and the client sends next",
    story=(
        "The client's segment is INVALID, so the rules do not find its service and it stays addressed to the VIP, "
        "which is nowhere. The node answers that there is no way there, unless a drop took the segment before; the "
        "client's stack tells its program ENETUNREACH if that asks, gives up no established connection for it, and "
        "tries again. The connection hangs under every fix, where with the sysctl's default nobody would have noticed."
    ),
    threads=(
        "Documentation/networking/nf_conntrack-sysctl.rst",
        "RFC 1122, 4.2.3.9",
    ),
    scenario=ConnectionScenario,
    steps=_steps_client_first,
    expectations=on_every_kernel(always(Judgement.INVALID, Outcome.STALLED)),
    demands=(no_way_to_service,),
)

CASES: Final = (CASE, _CLIENT_FIRST)
