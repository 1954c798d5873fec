# SPDX-License-Identifier: MIT
"""Invalid for its checksum: it leaks, and nobody answers."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario

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
    steps=Injection(
        lambda scenario: scenario.from_server(0, b"broken", checksum=0x0BAD),
        answer="",
        stranger="",
        reason="bad checksum",
    ),
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
