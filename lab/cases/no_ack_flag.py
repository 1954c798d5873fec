# SPDX-License-Identifier: MIT
"""A segment that acknowledges nothing cannot kill."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(0, b"no ack", flags="P"))
    scenario.expect_answer("RST,ACK", stranger="RST,ACK")
    scenario.expect_reason("invalid tcp flag combination")
    scenario.expect("number 0 in it", all(one.tcp is None or one.tcp.sequence == 0 for one in scenario.answers()))
    await scenario.go_on()


CASE: Final = Case(
    name="no-ack-flag",
    title="data without the ACK flag",
    story=(
        "In an established connection every segment has the ACK flag, and conntrack refuses one without it. "
        "It leaks, and the client answers a segment without acknowledgement by a RST with number 0. That is "
        "not what the server waits for, so nothing happens."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_valid_flags",
        "RFC 9293, 3.10.7.1",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
