# SPDX-License-Identifier: MIT
"""The report as it was: downloads through a network that is congested, and no forged packet at all."""

from __future__ import annotations

from typing import Final

from lab.cases.case import ACCEPTED, IGNORED_UNLESS_LIBERAL, RESET, Case, row
from lab.cases.demands import router_before_server
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import DownloadsScenario
from lab.verdict import Outcome
from lab.vocabulary import Behaviour

#: One data packet in a hundred is held back, of more than 8,000: that none is happens once in 10^34 trials.
_ONE_IN: Final = 100
_DOWNLOADS: Final = 8
_SIZE: Final = 1_500_000  # bytes


async def _steps(scenario: DownloadsScenario) -> None:
    scenario.hold_back(_ONE_IN)
    await scenario.download(_DOWNLOADS, _SIZE)


async def _steps_without_nat(scenario: DownloadsScenario) -> None:
    scenario.hold_back(_ONE_IN)
    await scenario.download(_DOWNLOADS, _SIZE, by_service=False)


#: INVALID, but what is dropped was sent twice, and what leaks without NAT comes from the right address.
_HARMLESS: Final = Expectation(Judgement.INVALID, Outcome.DELIVERED)
_UNTRACKED: Final = Expectation(Judgement.UNTRACKED, Outcome.DELIVERED)

CASE: Final = Case(
    name="congested",
    title="no forged packet: eight downloads at once, and a router that holds back one packet in a hundred",
    story=(
        "The server takes a packet that is held back for lost and sends it again, so the first one comes when the"
        " client is more than a window further. Up to Linux 6.0 it is INVALID and kills the download, as in the report;"
        " from 6.1 on conntrack ignores it, lets it through and translates it. The drop takes nothing from anybody:"
        " what it drops has arrived before."
    ),
    threads=(
        "kubernetes/kubernetes#74839",
        "torvalds/linux 6e250dcbff1d",
    ),
    scenario=DownloadsScenario,
    steps=_steps,
    expectations={
        Behaviour.STRICT: row(RESET, _HARMLESS, ACCEPTED),
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
    topology="congested",
    demands=(router_before_server,),
    slow=True,
    needs=("nft_numgen", "sch_htb"),
)

CONTROL: Final = Case(
    name="congested-without-nat",
    title="control: the same downloads through the same router, but straight from the pod's address",
    story=(
        "The packets are as late as through the Service, and conntrack has the same word for them. But there is nothing"
        " to translate back, so even those that are INVALID come from the address that the client talks to. The client"
        " has their bytes and says so, and every download is whole."
    ),
    threads=("kubernetes/kubernetes#74839",),
    scenario=DownloadsScenario,
    steps=_steps_without_nat,
    expectations={
        Behaviour.STRICT: row(_HARMLESS, _HARMLESS, ACCEPTED, untracked=_UNTRACKED),
        Behaviour.IGNORES_LATE: row(
            Expectation(Judgement.IGNORED, Outcome.DELIVERED),
            Expectation(Judgement.IGNORED, Outcome.DELIVERED),
            ACCEPTED,
            untracked=_UNTRACKED,
        ),
    },
    topology="congested",
    demands=(router_before_server,),
    slow=True,
    needs=("nft_numgen", "sch_htb"),
)

CASES: Final = (CASE, CONTROL)
