# SPDX-License-Identifier: MIT
"""The entry is gone, and the client speaks first: nobody notices."""

from __future__ import annotations

from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.forget_entry()
    await scenario.client_speaks()
    await scenario.go_on()


CASE: Final = Case(
    name="entry-deleted-client-first",
    title="the connection's entry is deleted, and the client sends next",
    story=(
        "The client's segment goes to the VIP, so the node's rules find the service again and conntrack "
        "begins a new entry with the same translation. Since it did not see the handshake it is liberal about "
        "this entry's window from then on. The connection recovers as if nothing had been; among several "
        "endpoints the rules would choose anew, and another one knows nothing of it."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "net/netfilter/nf_conntrack_proto_tcp.c",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED)),
    demands=(one_endpoint, not_masqueraded),
)
