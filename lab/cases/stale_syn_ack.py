# SPDX-License-Identifier: MIT
"""The answer to an older SYN comes to a newer one."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, LEAKS_UNLESS_LIBERAL, Case
from lab.cases.demands import one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ScriptedScenario
from lab.vocabulary import Behaviour

_LATER: Final = 4_000_000  # how far initial sequence numbers are apart; more than any window in the script


async def _steps(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.forget_entry()
    scenario.client.begin(_LATER)
    await scenario.ask()
    await scenario.expect_judgements(Judgement.NEW)
    scenario.server.begin(_LATER)
    scenario.judge(scenario.server.syn_ack(acknowledge=1 - _LATER))
    await scenario.judged()
    scenario.server.begin(2 * _LATER)
    scenario.server.syn_ack()
    fresh = await scenario.last_judgement()
    scenario.find(f"behind a stale SYN,ACK the right one is {fresh}")
    if fresh is not Judgement.INVALID:
        scenario.client.ack()
        await scenario.expect_judgements(Judgement.ACCEPTED)
        scenario.expect_entry(state="ESTABLISHED")


CASE: Final = Case(
    name="stale-syn-ack",
    title="a client uses its port again, and the answer is to its last connection's SYN",
    story=(
        "The SYN,ACK acknowledges a number far below the new SYN. Up to Linux 6.0 that is INVALID, and so is the "
        "right answer after it, for the numbers of the stale one have stayed: the port connects no more until the "
        "entry is gone. From 6.1 on the stale one is ignored, the client may reset it, and the right one begins the "
        "server's side anew."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_in_window",
        "torvalds/linux 6e250dcbff1d",
    ),
    scenario=ScriptedScenario,
    steps=_steps,
    demands=(one_endpoint,),
    expectations={
        Behaviour.STRICT: LEAKS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)
