# SPDX-License-Identifier: MIT
"""The other direction: what the client sends is INVALID, and the VIP is an address that nobody has."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED, DROPPED, LEAKED, Case, on_every_kernel, row
from lab.cases.demands import no_way_to_service, way_to_service
from lab.scenario import ConnectionScenario

_UNREACHABLE: Final = "no way to the VIP: the node says so by ICMP, unless a rule dropped the segment"


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_client(FAR, b"far off"))
    scenario.expect_answer("ACK", stranger="")
    scenario.expect_error(scenario.roles.client, None)
    await scenario.go_on()


async def _steps_without_way(scenario: ConnectionScenario) -> None:
    await _steps(scenario)
    unanswered = scenario.unheard and not scenario.dropped()
    scenario.expect(_UNREACHABLE, scenario.unreachable == unanswered)


CASE: Final = Case(
    name="client-beyond-window",
    about_answers=False,
    title="the client's data far beyond the server's window, and the node has no default route",
    story=(
        "What is INVALID on its way to the service keeps the VIP as its destination, which no host has. This node has"
        " no route there: it answers with ICMP network unreachable, before FORWARD and its drop. The client's stack"
        " finds the quoted number to be none of its own and goes on; where such a segment is real, it is lost."
    ),
    threads=("kubernetes/kubernetes#119887", "kubeovn/kube-ovn#1705"),
    scenario=ConnectionScenario,
    steps=_steps_without_way,
    expectations=on_every_kernel(row(DROPPED, DROPPED, ACCEPTED)),
    demands=(no_way_to_service,),
)

ROUTED: Final = Case(
    name="client-beyond-window-routed",
    about_answers=False,
    title="the same, and the node has a default route, as nodes have",
    story=(
        "The node forwards the segment with the VIP as its destination to where its default route leads: out of the"
        " cluster. Nobody there answers, so nothing is reset, but what the client sent to a service is seen by the"
        " world. Since it is forwarded, kube-proxy's drop keeps it in; a real segment is lost either way, unless"
        " conntrack is liberal."
    ),
    threads=("kubernetes/kubernetes#119887", "kubeovn/kube-ovn#1705"),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(row(LEAKED, DROPPED, ACCEPTED)),
    topology="uplink",
    demands=(way_to_service,),
)

CASES: Final = (CASE, ROUTED)
