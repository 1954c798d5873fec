# SPDX-License-Identifier: MIT
"""The client is the node itself (hostNetwork): the packet ends in INPUT, where kube-proxy's drop is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import (
    ACCEPTED,
    ACCEPTED_ALWAYS,
    DROPPED,
    IGNORED_UNLESS_LIBERAL,
    RESET,
    Case,
    Row,
    on_every_kernel,
    row,
)
from lab.cases.demands import alone, way_to_service
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario
from lab.scenario.roles import Roles, roles_in
from lab.topology.model import Topology
from lab.vocabulary import Behaviour, Family

#: A packet out of the window that is for the node itself: what is dropped in FORWARD is no matter.
KILLS_THE_NODES_UNLESS_LIBERAL: Final[Row] = row(RESET, DROPPED, ACCEPTED, local=True)


def steps_at(offset: int) -> Callable[[ConnectionScenario], Awaitable[None]]:
    """Return the steps of one segment from the server that ends at the node, so many bytes from the next one.

    A client behind the node sees nothing of one that conntrack does not place, whatever becomes of it.
    """

    async def steps(scenario: ConnectionScenario) -> None:
        await scenario.establish()
        await scenario.inject(scenario.from_server(offset, scenario.next_bytes(100)))
        taken = scenario.taken_by_node
        if offset:
            placed = Judgement.INVALID not in scenario.judgements_of_nodes().values()
            if placed or scenario.roles.client != scenario.roles.node:
                scenario.expect_answer("ACK")
        scenario.expect_error(scenario.client_end.host, None)  # whatever became of the server
        await scenario.go_on()
        scenario.expect("no rule to drop what the node's own stack took", not (taken and scenario.dropped()))

    return steps


def _asked_by_the_node(topology: Topology, family: Family, service: str | None = None) -> Roles:
    return roles_in(topology, family, service, client=roles_in(topology, family, service).node)


CASE: Final = Case(
    name="client-on-node",
    title="data far beyond the window, and the client is the node itself, as pods with hostNetwork are",
    story=(
        "The server's packets are for the node's own address, so they end in INPUT and never see FORWARD, where"
        " kube-proxy drops: its rule counts nothing. The INVALID segment comes to the node's own stack from the pod's"
        " address, and the node itself sends the RST that kills. A drop in INPUT or in mangle PREROUTING helps, and so"
        " does a liberal conntrack."
    ),
    threads=("kubernetes/kubernetes#117924", "moby/libnetwork#1090"),
    scenario=ConnectionScenario,
    steps=steps_at(FAR),
    expectations=on_every_kernel(KILLS_THE_NODES_UNLESS_LIBERAL),
    choose_roles=_asked_by_the_node,
    topology="uplink",
    demands=(way_to_service, alone),
)

BEHIND: Final = Case(
    name="client-on-node-behind",
    title="the same client, and 100,000 bytes behind instead",
    story=(
        "Up to Linux 6.0 a late segment is INVALID for the node's own clients too, and the node's RST kills. From 6.1"
        " on it is ignored, and that means translated. So the node's stack finds its connection, and answers with an"
        " acknowledgement."
    ),
    threads=("kubernetes/kubernetes#117924", "torvalds/linux 6e250dcbff1d"),
    scenario=ConnectionScenario,
    steps=steps_at(-100_000),
    expectations={
        Behaviour.STRICT: KILLS_THE_NODES_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
    choose_roles=_asked_by_the_node,
    topology="uplink",
    demands=(way_to_service, alone),
)

IN_WINDOW: Final = Case(
    name="client-on-node-in-window",
    title="control: the same client, and the bytes that the server sends next",
    story=(
        "The segment is the one that the node waits for, so conntrack accepts it and the node translates it on its way"
        " to INPUT. The node's stack takes its bytes from the VIP. Were this connection to die, the way would be the"
        " culprit and not the window."
    ),
    threads=("kubernetes/kubernetes#117924",),
    scenario=ConnectionScenario,
    steps=steps_at(0),
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    choose_roles=_asked_by_the_node,
    topology="uplink",
    demands=(way_to_service, alone),
)

CASES: Final = (CASE, BEHIND, IN_WINDOW)
