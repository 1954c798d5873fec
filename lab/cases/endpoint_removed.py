# SPDX-License-Identifier: MIT
"""The endpoint is gone from the Service, and who is connected to it goes on."""

from __future__ import annotations

from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.cases.demands import living_proxy
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    service = scenario.roles.service.partition(":")[0]
    scenario.lab.endpoints.remove(service, scenario.server_end.own_address.address)
    scenario.expect_entry(state="ESTABLISHED", assured=True)
    await scenario.client_speaks()
    await scenario.server_speaks()
    await scenario.go_on()


CASE: Final = Case(
    name="endpoint-removed",
    title="the endpoint that a client is connected to is taken from the Service, and both go on",
    story=(
        "The rules choose an endpoint for the first packet of a connection; the entry remembers the choice, and it"
        " outlives the rule. So the connection goes on to an endpoint that the Service no longer has, which is what"
        " lets a pod end in peace. It is also why a pod that vanishes leaves its clients in the dark: nobody deletes"
        " their entries, and nobody tells them."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "kubernetes/kubernetes#113203",
        "kubernetes/kubernetes#102669",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    demands=(living_proxy,),
)
