# SPDX-License-Identifier: MIT
"""Two questions at once from one socket: the well-known five seconds, and why they are gone."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import second_endpoint
from lab.errors import LabError, MissingError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import Packet
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario
from lab.scenario.roles import CLIENT_PORT, roles_in
from lab.verdict import Outcome
from lab.wire import hold

_THREADS: Final = (
    "kubernetes/kubernetes#56903",
    "weaveworks/weave#3287",
    "net/netfilter/nf_conntrack_core.c (nf_ct_resolve_clash: ed07d9a021df, 6a757c07e51f)",
)
_TRIES: Final = 64  # the node chooses at random: in as many, the wanted choice is missed once in 2^64
_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LEAKED)


async def _race(scenario: DatagramsScenario, *, one_endpoint: bool) -> None:
    await scenario.settle()  # a bridge that has not learned where an endpoint is floods its ports, and copies are held
    scenario.hold()
    for port in range(CLIENT_PORT, CLIENT_PORT + _TRIES):
        scenario.ask("A kubernetes.default", port=port)
        scenario.ask("AAAA kubernetes.default", port=port)
        first, second = await scenario.held(2)
        if (first.destination == second.destination) is one_endpoint:
            break
        scenario.take_back(first, second)
    else:
        raise LabError(f"in {_TRIES} tries the rules never chose {'one endpoint' if one_endpoint else 'two endpoints'}")
    scenario.release(second, first)
    await scenario.settle()
    _refuse_old_queues(scenario, first, second)
    by_conntrack = scenario.statistics().get("clash_resolve", 0)
    scenario.find(f"the clash is resolved {'by conntrack' if by_conntrack else 'where the loser leaves the queue'}")
    if not one_endpoint:
        scenario.expect_counter("clash_resolve", 1)
    scenario.expect_counter("insert_failed", 0)
    scenario.expect_counter("drop", 0)


def _refuse_old_queues(scenario: DatagramsScenario, loser: Packet, winner: Packet) -> None:
    """Refuse a kernel whose NFQUEUE translates a loser anew when it leaves the queue, and leaves its route as it was.

    Seen on Linux 5.10 and 6.1, no longer on 6.12: the loser then looks for its new endpoint on the old one's link, and
    conntrack counts nothing. What holds the packet would be what loses it.

    :raises MissingError: this is one.
    """
    counted = scenario.statistics()
    told = any(counted.get(name) for name in ("clash_resolve", "insert_failed", "drop"))
    went_its_way = any(
        sighting.packet.payload_length == loser.payload_length
        for sighting in scenario.seen(scenario.roles.node, destination=loser.destination, outgoing=True)
    )
    if loser.destination != winner.destination and not told and not went_its_way:
        raise MissingError(
            "this kernel resolves a queued packet's clash when it leaves the queue, so the race cannot be made here",
            "boot a kernel that leaves it to conntrack, as Linux 6.12 does",
        )


async def _one_endpoint(scenario: DatagramsScenario) -> None:
    await _race(scenario, one_endpoint=True)


async def _two_endpoints(scenario: DatagramsScenario) -> None:
    await _race(scenario, one_endpoint=False)


ONE_ENDPOINT: Final = Case(
    name="dns-race-one-endpoint",
    title="one socket asks for A and AAAA at once, both led to the same endpoint, and the second overtakes the first",
    story=(
        "Both questions are the first packet of the same flow: each has an entry of its own until one of them has"
        " passed the node and its entry is in the table. The other's cannot go there any more, for the tuples are the"
        " same: older kernels dropped it, and the resolver waited five seconds. Since ed07d9a021df it goes on under the"
        " entry that won, counted under clash_resolve."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_one_endpoint,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    needs=hold.NEEDS,
)

TWO_ENDPOINTS: Final = Case(
    name="dns-race-two-endpoints",
    title="the same, with each question led to another endpoint",
    story=(
        "Now the entries agree in one direction only, so the loser cannot take the winner's: its answer comes from"
        " another address. Older kernels dropped it and counted it under insert_failed. Since 6a757c07e51f it gets an"
        " entry for a second that is found by the answer alone, counted under clash_resolve, and both are answered."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_two_endpoints,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    demands=(second_endpoint,),
    needs=hold.NEEDS,
)

CASES: Final = (ONE_ENDPOINT, TWO_ENDPOINTS)
