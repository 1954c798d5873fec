# SPDX-License-Identifier: MIT
"""Invalid for its checksum: it leaks, and nobody answers."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(0, b"broken", checksum=0x0BAD))
    scenario.expect_answer("", stranger="")
    scenario.expect_reason("bad checksum")
    await scenario.go_on()


CASE: Final = Case(
    name="bad-checksum",
    title="the next segment with a wrong checksum",
    story=(
        "Conntrack checks TCP's checksum before it looks at the window, so being liberal does not help: the "
        "packet is INVALID and leaks under either. The client checks it as well, drops it and says nothing. "
        "Only the drop rule keeps the pod's address from showing."
    ),
    threads=(
        "kubernetes/kubernetes#74839",
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_error",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
