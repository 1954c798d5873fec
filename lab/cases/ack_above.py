# SPDX-License-Identifier: MIT
"""Invalid, and yet nobody dies: the reset is not exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

from lab.cases.case import LEAKS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.scenario import ConnectionScenario
from lab.wire.craft import Segment


def _steps(make: Callable[[ConnectionScenario], Segment]) -> Callable[[ConnectionScenario], Awaitable[None]]:
    async def steps(scenario: ConnectionScenario) -> None:
        await scenario.establish()
        server = scenario.server_end
        spoken = len(scenario.seen(server.host, flags="A", outgoing=True)) + 1  # with the forged one
        await scenario.inject(make(scenario))
        reset = scenario.seen(server.host, destination=server.own_address, flags="R", outgoing=False)
        challenges = scenario.seen(server.host, flags="A", outgoing=True)[spoken:]
        scenario.expect(
            "a challenge of the server's for each RST that it gets", len(challenges) == len(reset), challenges
        )
        scenario.expect_error(server.host, None)
        await scenario.go_on()

    return steps


CASE: Final = Case(
    name="ack-above",
    title="the next segment, but it acknowledges one byte that the client never sent",
    story=(
        "Conntrack has not seen that byte from the client, so the segment is INVALID on every kernel and "
        "leaks. The client's RST copies the wrong number, and the server's kernel takes only the exact one: "
        "it answers with a challenge acknowledgement and lives. INVALID and reset are two things, and have to "
        "be shown apart."
    ),
    threads=(
        "RFC 5961, 3.2",
        "net/netfilter/nf_conntrack_proto_tcp.c",
    ),
    scenario=ConnectionScenario,
    steps=_steps(lambda scenario: scenario.from_server(acknowledge=1)),
    expectations=on_every_kernel(LEAKS_UNLESS_LIBERAL),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="ack-above-with-data",
    title="the next bytes, acknowledging one byte that the client never sent",
    story=(
        "The bytes are the ones that the client waits for, and still the acknowledgement alone makes them "
        "INVALID on every kernel. They are lost on the client, which resets the stranger with a number that is "
        "off by one. The server lives, and sends its bytes with its own acknowledgement."
    ),
    steps=_steps(lambda scenario: scenario.from_server(0, scenario.next_bytes(100), acknowledge=1)),
)

CASES: Final = (CASE, _TWIN)
