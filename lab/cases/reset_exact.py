# SPDX-License-Identifier: MIT
"""A reset with the one number that counts, forged on either side: it kills, and conntrack has nothing against it."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import KILLED_ALWAYS, Case, on_every_kernel
from lab.scenario import ConnectionScenario
from lab.wire.craft import Segment


async def _reset(scenario: ConnectionScenario, reset: Segment, victim: str) -> None:
    await scenario.inject(reset)
    for end in (scenario.client_end, scenario.server_end):
        scenario.expect_error(end.host, "ECONNRESET" if end.host == victim else None)
    scenario.expect_entry(state="CLOSE")


async def _from_server(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await _reset(scenario, scenario.from_server(flags="R"), scenario.client_end.host)


async def _from_client(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await _reset(scenario, scenario.from_client(flags="R"), scenario.server_end.host)


CASE: Final = Case(
    name="reset-exact",
    title="a forged RST from the server's side with the exact number",
    story=(
        "Whoever can guess the one number that the client waits for can end the connection in the server's name. "
        "Conntrack takes the RST for what it looks like, translates it and closes its entry. The client is reset and "
        "the server knows nothing; no fix is about that."
    ),
    threads=("RFC 5961, 3.2", "torvalds/linux be0502a3f2e9"),
    scenario=ConnectionScenario,
    steps=_from_server,
    expectations=on_every_kernel(KILLED_ALWAYS),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="reset-exact-from-client",
    title="a forged RST from the client's side with the exact number",
    story=(
        "The same in the other direction: the server waits for this number, and its kernel ends the connection. "
        "Nothing leaked before it, so it is not the bug of the report, though the server's program sees the same "
        "ECONNRESET. Who counts resets on servers counts both."
    ),
    steps=_from_client,
)

CASES: Final = (CASE, _TWIN)
