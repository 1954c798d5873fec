# SPDX-License-Identifier: MIT
"""A SYN comes before its service: whoever tries again from the same port is led past the service."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, always, on_every_kernel, unless_dropped
from lab.cases.demands import beyond, living_proxy, to_vips, way_to_service
from lab.scenario import ConnectionScenario, RefusedError
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#48719",
    "kubernetes/kubernetes#101607",
    "kubernetes/kubernetes#102669",
    "kubernetes/kubernetes#122692",
)


async def _service_comes(scenario: ConnectionScenario) -> None:
    services, slices = scenario.lab.services, scenario.lab.endpoint_slices
    scenario.lab.sync((), ())
    with suppress(RefusedError):
        await scenario.establish()
    outside, vip = beyond(scenario.lab.topology, scenario.roles), scenario.roles.service_address
    if to_vips(scenario.lab.topology, scenario.roles).drops_unallocated:
        scenario.expect_no_entry()
        await scenario.expect_nothing(outside, destination=vip)
    else:
        scenario.expect_entry(state="SYN_SENT", assured=False, timeout=range(100, 121))
        await scenario.expect_packet(outside, destination=vip, flags="S", outgoing=False)
    scenario.lab.sync(services, slices)


async def _connect(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.server_speaks()
    await scenario.go_on()


async def _kept(scenario: ConnectionScenario) -> None:
    await _service_comes(scenario)
    if not to_vips(scenario.lab.topology, scenario.roles).drops_unallocated:
        scenario.expect_entry(state="SYN_SENT", assured=False)
    await _connect(scenario)


async def _forgotten(scenario: ConnectionScenario) -> None:
    await _service_comes(scenario)
    if scenario.entry() is not None:  # a node that drops the SYN remembers nothing, and the checks have said so
        scenario.forget_entry()
    await _connect(scenario)


KEPT: Final = Case(
    name="syn-before-service",
    title="a client connects before the service is there, and tries again from the same port when it is",
    story=(
        "The first SYN finds no rule for the VIP and leaves by the default route; its entry waits two minutes for an"
        " answer. Every further SYN from that port belongs to this entry, so it goes the same way without translation,"
        " though the service is there by now; in nftables mode it is refused on the node, for the VIP is in use."
        " kube-proxy deletes such entries of UDP and not of TCP, whose clients mostly take another port. From v1.33 on"
        " nftables mode drops the first SYN, where the cluster's ServiceCIDRs hold the VIP: no entry stays, and the"
        " next SYN is answered."
    ),
    threads=_THREADS,
    scenario=ConnectionScenario,
    steps=_kept,
    expectations=on_every_kernel(unless_dropped(always(None, Outcome.REFUSED), dropped=ACCEPTED_ALWAYS)),
    topology="dns",
    demands=(living_proxy, way_to_service),
)

FORGOTTEN: Final = Case(
    name="syn-before-service-forgotten",
    title="control: the same, and somebody deletes the entry before the client tries again",
    story=(
        "Without the entry the SYN is the first of its flow again and the rules are asked. The connection comes about"
        " from the very port that was led astray. So it was the entry and nothing else."
    ),
    threads=_THREADS,
    scenario=ConnectionScenario,
    steps=_forgotten,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    topology="dns",
    demands=(living_proxy, way_to_service),
)

CASES: Final = (KEPT, FORGOTTEN)
