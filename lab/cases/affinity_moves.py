# SPDX-License-Identifier: MIT
"""Session affinity: the endpoint that a client sticks to is gone, and comes back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import living_proxy, second_endpoint
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario
from lab.scenario.roles import roles_in
from lab.verdict import Outcome

#: Flows before each change; without affinity, so many that all go to one of two endpoints once in four million times.
_FLOWS, _MANY_FLOWS = 5, 23
_AFFINITY: Final = "ClientIP"


async def _answering(scenario: DatagramsScenario, count: int, first: int) -> set[str]:
    """Ask from so many ports, each a flow of its own; return who answered.

    :param first: how many were asked from before: each question has its own port and its own length.
    """
    port = scenario.roles.client_address.port
    for number in range(first, first + count):
        scenario.ask("?" * (1 + number), port=port + number)
    await scenario.settle()
    return set(scenario.answering(count))


async def _steps(scenario: DatagramsScenario, *, affinity: bool) -> None:
    lab, service = scenario.lab, scenario.roles.service.partition(":")[0]
    spec = {"session_affinity": _AFFINITY if affinity else "None"}
    services = tuple(
        one.model_copy(update={"spec": one.spec.model_copy(update=spec)}) if one.key == service else one
        for one in lab.services
    )
    lab.sync(services, lab.endpoint_slices)
    at_first = await _answering(scenario, _FLOWS, 0)
    scenario.expect("one endpoint for all flows, where there is affinity", len(at_first) == 1 or not affinity, at_first)
    gone = scenario.answered_by.address
    lab.endpoints.remove(service, gone)
    moved = await _answering(scenario, _FLOWS, _FLOWS)
    left = {host for host, address in scenario.roles.servers if address.address != gone}
    scenario.expect("an endpoint that is left", moved <= left and (not affinity or len(moved) == 1), moved)
    lab.endpoints.add(service, gone)
    at_last = await _answering(scenario, _FLOWS if affinity else _MANY_FLOWS, 2 * _FLOWS)
    if affinity:
        scenario.expect("the endpoint that it has moved to", at_last == moved, at_last)
    else:
        scenario.expect("the endpoint that has come back as well", not at_last <= left, at_last)


CASE: Final = Case(
    name="affinity-moves",
    title="session affinity: the endpoint that a client sticks to is taken from the Service, and comes back",
    story=(
        "kube-proxy keeps a list of clients for each endpoint (xt_recent, or a set in nftables mode), and asks the"
        " lists before it chooses. With the endpoint goes its list, so the client's next flow finds an endpoint by"
        " chance, and sticks to that one. When the first comes back its list is empty: no client that has moved comes"
        " back within the three hours that affinity lasts after its last flow, so a pod that was replaced may stand"
        " idle beside one that has all the clients."
    ),
    threads=(
        "kubernetes/kubernetes#55603",
        "kubernetes/kubernetes#110302",
        "kubernetes.io/docs/reference/networking/virtual-ips#session-affinity",
    ),
    scenario=DatagramsScenario,
    steps=partial(_steps, affinity=True),
    expectations=on_every_kernel(
        always(Judgement.NEW, Outcome.DELIVERED, untracked=Expectation(Judgement.NEW, Outcome.LEAKED))
    ),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    demands=(living_proxy, second_endpoint),
)

_WITHOUT: Final = replace(
    CASE,
    name="affinity-off",
    title="control: the same without session affinity",
    story=(
        "Each flow is dealt to an endpoint by chance, whoever sends it. An endpoint that comes back gets its share of"
        " the new flows at once. Flows that have their entry go on to where they are, with affinity or without."
    ),
    steps=partial(_steps, affinity=False),
)

CASES: Final = (CASE, _WITHOUT)
