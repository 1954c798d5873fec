# SPDX-License-Identifier: MIT
"""The same wrong checksum where conntrack does not look."""

from __future__ import annotations

from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.set_node_sysctl("net/netfilter/nf_conntrack_checksum", 0)
    await scenario.inject(scenario.from_server(0, b"broken", checksum=0x0BAD))
    scenario.expect_answer("")
    await scenario.go_on()


CASE: Final = Case(
    name="bad-checksum-unchecked",
    title="the next segment with a wrong checksum, and nf_conntrack_checksum=0 on the node",
    story=(
        "The sysctl tells conntrack to leave checksums to the hosts, as network cards that check them allow. "
        "The packet is then judged by its numbers, accepted and translated. The client drops it for the "
        "checksum, and nobody saw a stranger."
    ),
    threads=("Documentation/networking/nf_conntrack-sysctl.rst",),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)
