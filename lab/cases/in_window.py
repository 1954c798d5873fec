# SPDX-License-Identifier: MIT
"""The control that must not show the bug: the same injection, inside the window."""

from __future__ import annotations

from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    # The very bytes that the server sends next, so the client may take them and the stream still holds.
    await scenario.inject(scenario.from_server(0, scenario.next_bytes(100)))
    await scenario.go_on()


CASE: Final = Case(
    name="in-window",
    title="control: the same injection, with the bytes that the server sends next",
    story=(
        "The injected segment is the one that the client waits for, so conntrack accepts it and the node translates it"
        " back. The client takes its bytes, and again when the server sends them itself. Were this connection to die,"
        " the injection would be the culprit and not the window."
    ),
    threads=("kubernetes/kubernetes#74839",),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)
