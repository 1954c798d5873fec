# SPDX-License-Identifier: MIT
"""An endpoint dies before it answers, and another pod gets its address: whoever tries again is led to that pod."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, suppress
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.cases.demands import living_proxy, second_endpoint
from lab.evidence.packet import SocketAddress
from lab.scenario import ConnectionScenario, RefusedError


async def _endpoint_dies(scenario: ConnectionScenario) -> SocketAddress:
    """Have an endpoint leave a SYN unanswered and be gone from its Service; return the address, which goes on."""
    with ExitStack() as silent:
        for host, _address in scenario.roles.servers:
            silent.enter_context(scenario.losing_from(host))
        with suppress(RefusedError):
            await scenario.establish()
    scenario.expect_entry(state="SYN_SENT", assured=False, timeout=range(100, 121))
    entry = scenario.entry()
    address = entry.reply[0] if entry else scenario.roles.servers[0][1]
    scenario.lab.endpoints.remove(scenario.roles.service.partition(":")[0], address.address)
    scenario.expect_entry(state="SYN_SENT", assured=False)
    return address


async def _connect(scenario: ConnectionScenario) -> SocketAddress:
    await scenario.establish()
    await scenario.server_speaks()
    await scenario.go_on()
    return scenario.server_end.own_address


async def _kept(scenario: ConnectionScenario) -> None:
    gone = await _endpoint_dies(scenario)
    found = await _connect(scenario)
    scenario.expect("a connection to whoever has the old endpoint's address", found == gone, found)


async def _forgotten(scenario: ConnectionScenario) -> None:
    gone = await _endpoint_dies(scenario)
    scenario.forget_entry()
    found = await _connect(scenario)
    scenario.expect("a connection to an endpoint of the Service", found != gone, found)


KEPT: Final = Case(
    name="address-recycled",
    title="an endpoint dies with a SYN unanswered, another pod gets its address, and the client tries again",
    story=(
        "The entry waits for the answer for two minutes, and a SYN of the same port belongs to it whatever the rules"
        " say by then. Where the address was given to another pod meanwhile, the client of one Service is connected to"
        " a pod of another, and nothing tells it. kube-proxy deletes such entries of UDP and not of TCP; a shorter"
        " nf_conntrack_tcp_timeout_syn_sent makes it rarer, and so does a network plugin that lets addresses rest for"
        " longer."
    ),
    threads=("aws/amazon-vpc-cni-k8s#3634", "kubernetes/kubernetes#101607", "kubernetes/kubernetes#102669"),
    scenario=ConnectionScenario,
    steps=_kept,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    topology="endpoints",
    demands=(living_proxy, second_endpoint),
)

FORGOTTEN: Final = dataclasses.replace(
    KEPT,
    name="address-recycled-forgotten",
    title="control: the same, and somebody deletes the entry before the client tries again",
    story=(
        "Without the entry the SYN is the first of its flow, so the rules are asked, and they know only the endpoints"
        " that are left. So it was the entry and nothing else."
    ),
    steps=_forgotten,
)

CASES: Final = (KEPT, FORGOTTEN)
