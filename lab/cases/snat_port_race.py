# SPDX-License-Identifier: MIT
"""Two pods behind one address: both are given the same port, and one loses its first packet."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import egress, second_pod, two_pods, way_back, way_out
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario
from lab.scenario.roles import CLIENT_PORT
from lab.verdict import Outcome
from lab.wire import hold

_THREADS: Final = (
    "kubernetes/kubernetes#76699",
    "kubernetes/kubernetes#78547",
    "kubernetes-sigs/ip-masq-agent#51",
    "net/netfilter/nf_nat_core.c (get_unique_tuple)",
)
# NOTRACK between pods leaves what goes out of the cluster alone.
_LOST: Final = Expectation(Judgement.NEW, Outcome.LOST)
_DELIVERED: Final = Expectation(Judgement.NEW, Outcome.DELIVERED)

_TRIES: Final = 16  # two ports of 64,512 by chance are the same once in as many


def masquerade(scenario: DatagramsScenario, how: str) -> None:
    """Give the node the rule that network plugins write for what leaves the cluster."""
    table = scenario.family.nft
    outside = way_out(scenario.lab.topology, scenario.roles)
    scenario.node.nft.run(
        f"table {table} lab_egress {{\nchain postrouting {{\n"
        f'type nat hook postrouting priority srcnat\noifname "{outside}" udp dport 53 {how}\n}}\n}}\n'
    )


async def _race(scenario: DatagramsScenario, how: str, *, same_port: bool) -> None:
    masquerade(scenario, how)
    other = second_pod(scenario.lab.topology, scenario.family, scenario.roles)
    scenario.hold()
    for port in range(CLIENT_PORT, CLIENT_PORT + _TRIES):
        scenario.ask("A example.com", port=port)
        scenario.ask("AAAA example.com", client=other, port=port)
        first, second = await scenario.held(2)
        if same_port or first.source != second.source:
            break
        scenario.take_back(first, second)
    translated = first.source.address != scenario.roles.client_address.address
    scenario.release(second, first)
    await scenario.settle()
    lost = int(same_port and translated)
    scenario.expect_counter("insert_failed", lost)
    scenario.expect_counter("drop", lost)
    if translated:
        chosen = f"{first.source} and {second.source}"
        words = "both flows to have got one port" if same_port else "each flow to have got a port of its own"
        scenario.expect(words, (first.source == second.source) is same_port, chosen)


async def _plain(scenario: DatagramsScenario) -> None:
    await _race(scenario, "masquerade", same_port=True)


async def _random(scenario: DatagramsScenario) -> None:
    await _race(scenario, "masquerade fully-random", same_port=False)


PLAIN: Final = Case(
    name="snat-port-race",
    title="two pods ask from the same port at once, and the node's masquerading gives both the same port",
    story=(
        "Masquerading keeps a flow's own port where no entry in the table has it, and a flow's entry comes there only"
        " behind the whole node: two flows at once both find the port free. Their answers could not be told apart, so"
        " the second to arrive is dropped and counted under insert_failed. TCP sends its SYN again a second later,"
        " a datagram is lost, and no fix against INVALID packets has anything to do with it."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_plain,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.LOST, untracked=_LOST)),
    choose_roles=partial(egress, port=53),
    topology="dns",
    demands=(two_pods, way_back),
    needs=hold.NEEDS,
)

RANDOM: Final = Case(
    name="snat-port-race-random",
    title="control: the same with --random-fully, as kube-proxy writes its own masquerading (kubernetes #78547)",
    story=(
        "Each flow is given a port by chance instead of its own, so two at once meet in the same one once in 64,512"
        " times, and not whenever two pods happen to use the same. Both questions are answered. Such a meeting is taken"
        " back and tried again here, for it would be the race once more."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_random,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_DELIVERED)),
    choose_roles=partial(egress, port=53),
    topology="dns",
    demands=(two_pods, way_back),
    needs=hold.NEEDS,
)

CASES: Final = (PLAIN, RANDOM)
