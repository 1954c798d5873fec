# SPDX-License-Identifier: MIT
"""A header that claims to be longer than the packet."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(header_words=15, timestamps=None))
    scenario.expect_answer("", stranger="")
    scenario.expect_reason("truncated packet")
    await scenario.go_on()


CASE: Final = Case(
    name="truncated-header",
    title="a segment of 20 bytes whose header claims 60",
    story=(
        "The data offset points beyond the packet's end, so conntrack cannot read the header and calls the packet "
        "INVALID; the kernel's reason is that it is truncated. It leaks. The client cannot read it either and drops "
        "it in silence."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet",),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
