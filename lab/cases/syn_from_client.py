# SPDX-License-Identifier: MIT
"""The client begins anew in the middle of a connection."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_ALWAYS, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    before = len(scenario.seen(scenario.client_end.host, flags="A", outgoing=False))
    await scenario.inject(scenario.from_client(flags="S"))
    challenges = scenario.seen(scenario.client_end.host, flags="A", outgoing=False)[before:]
    answers = [str(challenge.packet.source) for challenge in challenges]
    scenario.expect("one challenge, from the VIP", answers == [str(scenario.roles.service_address)], answers)
    scenario.expect_entry(state="ESTABLISHED")
    await scenario.go_on()


CASE: Final = Case(
    name="syn-from-client",
    title="a SYN from the client's port in the established connection",
    story=(
        "In the direction of the original a SYN may be the client's fresh start, of which the node missed the end "
        "before, so conntrack ignores it: it is let through and translated, and the server shall decide. The server "
        "answers with a challenge acknowledgement, which is translated back. The connection goes on, for the same SYN "
        "from the other side is INVALID but this one is not."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks",
        "RFC 5961, 4.2",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(IGNORED_ALWAYS),
)
