# SPDX-License-Identifier: MIT
"""kube-proxy hears late from which ranges cluster IPs come: until its next full sync it drops nothing there."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import drops_unallocated, living_proxy, way_to_service
from lab.cases.udp_before_service import SERVED, service_comes
from lab.evidence.judgement import Judgement
from lab.scenario import DatagramsScenario, LastDatagramScenario
from lab.scenario.roles import roles_in
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#122692",
    "kubernetes/kubernetes#48370",
    "pkg/proxy/nftables/proxier.go (OnServiceCIDRsChanged, syncProxyRules)",
)


async def _late(scenario: DatagramsScenario) -> None:
    scenario.lab.full_sync(())
    await service_comes(scenario, dropped=False)
    scenario.lab.full_sync(scenario.lab.topology.service_cidrs)
    scenario.expect_entry()
    scenario.ask("are you there, now that the ranges are known?")
    await scenario.settle()


async def _in_time(scenario: DatagramsScenario) -> None:
    scenario.lab.full_sync(())
    scenario.lab.full_sync(scenario.lab.topology.service_cidrs)
    await service_comes(scenario, dropped=True)


LATE: Final = Case(
    name="service-cidr-late",
    title="kube-proxy hears of the ServiceCIDRs after its first sync, and a client asks before the service is there",
    story=(
        "kube-proxy starts when it knows Services and endpoints, and writes the drop of what goes to a VIP that no"
        " Service has by the ServiceCIDRs that it has heard of by then. One that it hears of later asks for no sync,"
        " and a change of a Service asks for a partial one alone, so the rule is missing until something asks for all"
        " rules. Until then a node of v1.33 does as one of v1.32: a question that comes before its service leaves an"
        " entry, and the entry is in the way of the next questions even when the rule is there at last."
    ),
    threads=_THREADS,
    scenario=LastDatagramScenario,
    steps=_late,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.REFUSED, untracked=None)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="service-cidr",
    demands=(living_proxy, way_to_service, drops_unallocated),
)

IN_TIME: Final = Case(
    name="service-cidr-late-synced",
    title="control: the same, and a full sync comes before the client asks",
    story=(
        "Whatever has kube-proxy write all its rules anew brings the drop: a sync that failed, or a change of the"
        " node's labels. The question that comes before the service ends on the node then, and conntrack forgets it"
        " with it. The next one, from the same port, is served."
    ),
    threads=_THREADS,
    scenario=LastDatagramScenario,
    steps=_in_time,
    expectations=on_every_kernel(SERVED),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="service-cidr",
    demands=(living_proxy, way_to_service, drops_unallocated),
)

CASES: Final = (LATE, IN_TIME)
