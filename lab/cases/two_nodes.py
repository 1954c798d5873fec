# SPDX-License-Identifier: MIT
"""Two nodes on the way: whose conntrack judges, and whose word counts."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, always, on_every_kernel
from lab.cases.demands import nodes_between, two_nodes
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario
from lab.scenario.roles import Roles, roles_in
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Family


def _nodes(scenario: ConnectionScenario) -> tuple[str, str]:
    """Return the client's node and the server's."""
    client, (_host, address) = scenario.roles.client, scenario.roles.servers[0]
    clients, servers = nodes_between(scenario.lab.topology, client, address.address)
    return clients, servers


def _at_servers(topology: Topology, family: Family, service: str | None = None) -> Roles:
    roles = roles_in(topology, family, service)
    passed = nodes_between(topology, roles.client, roles.servers[0][1].address)
    return dataclasses.replace(roles, node=(passed or (roles.node,))[-1])


async def _steps_far(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(FAR, b"far off"))
    words = scenario.judgements_of_nodes()
    clients, servers = _nodes(scenario)
    first, second = words.get(servers), words.get(clients)
    scenario.expect("a word of the server's node", first is not None, words)
    scenario.expect(
        "the client's node to see only what the server's node let pass", (second is None) == scenario.unheard, words
    )
    scenario.expect("the same word where both see it", second in (None, first), words)
    await scenario.go_on()


async def _steps_forgotten(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.forget_entry()
    await scenario.server_speaks()
    words = scenario.judgements_of_nodes()
    [other] = {*_nodes(scenario)} - {scenario.roles.node}
    expected = {scenario.roles.node: Judgement.NEW, other: Judgement.ACCEPTED}
    scenario.expect("only the node without the entry to take the segment for new", words == expected, words)
    await scenario.go_on()


CASE: Final = Case(
    name="judged-on-both-nodes",
    title="data far beyond the window, from a server pod on another node",
    story=(
        "Both nodes have seen every segment, so both know the window and each calls this one INVALID. The server's node"
        " has nothing to translate and passes it on; at the client's node it is not translated back, and leaks. A drop"
        " works on the server's node already, so the client's node never sees the segment: where pods of several nodes"
        " talk, a node is protected by the fixes of the others too."
    ),
    threads=("kubernetes/kubernetes#74839", "kubernetes/kubernetes#93337"),
    scenario=ConnectionScenario,
    steps=_steps_far,
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
    topology="across-nodes",
    demands=(two_nodes,),
)

CLIENTS_ENTRY: Final = Case(
    name="entry-deleted-on-clients-node",
    title="the client's node loses the entry, and the server sends next",
    story=(
        "The server's node has its entry and accepts the segment. The client's node alone knew the translation: it"
        " takes the segment for new, passes it on from the pod's address, and the client's RST kills. An entry on the"
        " other node is no help, and neither is a fix."
    ),
    threads=("kubernetes/kubernetes#100698", "kubernetes/kubernetes#38802"),
    scenario=ConnectionScenario,
    steps=_steps_forgotten,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
    topology="across-nodes",
    demands=(two_nodes,),
)

SERVERS_ENTRY: Final = Case(
    name="entry-deleted-on-servers-node",
    title="control: the server's node loses the entry, and the server sends next",
    story=(
        "To the server's node they are packets from one pod to another, with nothing to translate. It takes the segment"
        " for new and passes it on as it is. The client's node has its entry and translates it back, so nobody notices."
    ),
    threads=("kubernetes/kubernetes#100698",),
    scenario=ConnectionScenario,
    steps=_steps_forgotten,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED)),
    choose_roles=_at_servers,
    topology="across-nodes",
    demands=(two_nodes,),
)

CASES: Final = (CASE, CLIENTS_ENTRY, SERVERS_ENTRY)
