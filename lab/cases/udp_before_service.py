# SPDX-License-Identifier: MIT
"""A datagram comes before its service: the entry without translation stands in the way of all that follow."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel, unless_dropped
from lab.cases.demands import beyond, living_proxy, to_vips, way_to_service
from lab.evidence.judgement import Judgement
from lab.fixes import Protection
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario, LastDatagramScenario
from lab.scenario.roles import roles_in
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#48370",
    "kubernetes/kubernetes#105657",
    "kubernetes/kubernetes#122692",
    "pkg/proxy/conntrack/cleanup.go",
)

#: The rules are asked, for there is no entry. NEW is what conntrack calls every packet of a flow that nobody has
#: answered, also where it has an entry.
SERVED: Final = always(Judgement.NEW, Outcome.DELIVERED, untracked=Expectation(Judgement.NEW, Outcome.LEAKED))


def stuck(protection: Protection) -> Expectation:
    """Expect what becomes of a datagram for a Service's VIP that its entry keeps from being translated."""
    return Expectation(Judgement.NEW, Outcome.REFUSED if protection.rejects_untranslated else Outcome.LOST)


async def service_comes(scenario: DatagramsScenario, *, dropped: bool, cleaned: bool = False) -> None:
    """Ask before the service is there, and again when it is.

    :param dropped: the node is to drop the first question.
    :param cleaned: kube-proxy deletes entries when the service comes.
    """
    services, slices = scenario.lab.services, scenario.lab.endpoint_slices
    scenario.lab.sync((), ())
    scenario.ask("is anybody there?")
    await scenario.settle()
    outside, vip = beyond(scenario.lab.topology, scenario.roles), scenario.roles.service_address
    if dropped:
        await scenario.expect_nothing(outside, destination=vip)
    else:
        await scenario.expect_packet(outside, destination=vip, outgoing=False)
    scenario.lab.sync(services, slices, clean_conntrack=cleaned)
    if dropped or cleaned:
        scenario.expect_no_entry()
    else:
        scenario.expect_entry()
    scenario.ask("is there anybody now?")
    await scenario.settle()


async def _kept(scenario: DatagramsScenario) -> None:
    await service_comes(scenario, dropped=to_vips(scenario.lab.topology, scenario.roles).drops_unallocated)


async def _cleaned(scenario: DatagramsScenario) -> None:
    await service_comes(
        scenario, dropped=to_vips(scenario.lab.topology, scenario.roles).drops_unallocated, cleaned=True
    )


KEPT: Final = Case(
    name="udp-before-service",
    title="a client asks before the service is there, and goes on asking from the same port when it is",
    story=(
        "The first question finds no rule for the VIP, so it leaves by the default route, and conntrack remembers a"
        " flow that needs no translation. A flow's translation is chosen once, by its first packet: its state is still"
        " NEW, for nobody has answered, but the rules that come later are never asked. The client talks past the"
        " service for as long as it keeps its port and does not pause for longer than the entry lives; in nftables"
        " mode it is refused on the node, for the VIP is in use by then and nothing has translated it. From v1.33 on"
        " nftables mode drops the first question, where the cluster's ServiceCIDRs hold the VIP: no entry stays, and"
        " the next question is served."
    ),
    threads=_THREADS,
    scenario=LastDatagramScenario,
    steps=_kept,
    expectations=on_every_kernel(unless_dropped(stuck, dropped=SERVED)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    endpoint_on_node=True,
    demands=(living_proxy, way_to_service),
)

CLEANED: Final = Case(
    name="udp-before-service-cleaned",
    title="control: the same, and kube-proxy deletes the entries when the service gets its first endpoint",
    story=(
        "kube-proxy deletes what conntrack remembers of a UDP service that gets its first endpoint. The next question"
        " is NEW, and finds the service. That is all it takes, and for TCP nobody does it. Where nftables mode has"
        " dropped the first question (from v1.33 on) there was nothing to delete."
    ),
    threads=_THREADS,
    scenario=LastDatagramScenario,
    steps=_cleaned,
    expectations=on_every_kernel(SERVED),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    endpoint_on_node=True,
    demands=(living_proxy, way_to_service),
)

CASES: Final = (KEPT, CLEANED)
