# SPDX-License-Identifier: MIT
"""Flags that no stack sends: being liberal does not cure them."""

from __future__ import annotations

from typing import Final

from lab.cases.case import KILLS_UNLESS_DROPPED, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(flags="SFA"))
    scenario.expect_answer("RST")
    scenario.expect_reason("invalid tcp flag combination")
    await scenario.go_on()


CASE: Final = Case(
    name="syn-fin",
    title="SYN, FIN and ACK at once, with exact numbers",
    story=(
        "Conntrack refuses combinations of flags that no TCP sends, before it looks at the window. The client "
        "answers the stranger with a RST whose number is the exact one, and the server's kernel ends the "
        "connection. Being liberal is about the window and does not help here; the drop rule does."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_valid_flags",),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(KILLS_UNLESS_DROPPED),
)
