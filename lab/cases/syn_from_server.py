# SPDX-License-Identifier: MIT
"""The server begins anew in the middle of a connection."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(flags="S", acknowledge=0))
    scenario.expect_answer("RST,ACK", stranger="RST,ACK")
    scenario.expect("number 0 in it", all(one.tcp is None or one.tcp.sequence == 0 for one in scenario.answers()))
    await scenario.go_on()


CASE: Final = Case(
    name="syn-from-server",
    title="a SYN from the server's port in the established connection",
    story=(
        "In the direction of the answer a SYN has no place in an established connection, so it is INVALID by "
        "conntrack's table of states, and being liberal changes nothing. The client answers the stranger's "
        "SYN with a RST of number 0. The server waits for another number, and lives."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks",),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
