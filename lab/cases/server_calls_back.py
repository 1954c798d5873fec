# SPDX-License-Identifier: MIT
"""A server connects to its client, from the port that it serves to the port that it was asked from."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, always, on_every_kernel
from lab.cases.demands import alone, not_masqueraded
from lab.evidence.judgement import Judgement
from lab.scenario import ScriptedScenario
from lab.verdict import Outcome

_LATER: Final = 4_000_000  # how far initial sequence numbers are apart; more than any window in the script


async def _call_back(scenario: ScriptedScenario) -> None:
    scenario.client.begin(_LATER)
    scenario.server.begin(_LATER)
    scenario.judge(scenario.server.syn())


async def _closed(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.client.fin()
    scenario.server.fin()
    scenario.client.ack()
    await scenario.expect_judgements(*[Judgement.ACCEPTED] * 3)
    scenario.expect_entry(state="TIME_WAIT", timeout=range(110, 121))
    await _call_back(scenario)
    await scenario.expect_judgements(Judgement.NEW)
    scenario.client.to = scenario.server.own  # who called
    scenario.client.syn_ack()
    scenario.server.ack()
    await scenario.expect_judgements(Judgement.ACCEPTED, Judgement.ACCEPTED)
    entry, wanted = scenario.entry(), (scenario.server.own, scenario.client.own)
    scenario.expect("an entry that the server has begun", entry is not None and entry.original == wanted, entry)
    scenario.expect_entry(state="ESTABLISHED")


async def _reset(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.server.rst()
    await scenario.expect_judgements(Judgement.ACCEPTED)
    scenario.expect_entry(state="CLOSE", timeout=range(11))
    await _call_back(scenario)
    await scenario.expect_judgements(Judgement.INVALID)
    scenario.expect_entry(state="CLOSE")


CASE: Final = Case(
    name="syn-from-server-in-time-wait",
    title="both sides have closed, and the server connects to the client between the same two ports",
    story=(
        "In any other state a SYN from the server's side is INVALID; in TIME_WAIT conntrack gives the old entry up and"
        " takes it for the first packet of a connection that the server begins. What a pod begins is not translated"
        " back to the VIP, so the client is called by the pod's own address, which may be a stranger to it. No fix"
        " concerns it, for nothing is INVALID."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks (SYN in TIME_WAIT, reply)", "RFC 9293, 3.6.1"),
    scenario=ScriptedScenario,
    steps=_closed,
    demands=(not_masqueraded,),
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.LEAKED)),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="syn-from-server-in-close",
    title="control: the same SYN, but the server has reset the connection instead",
    story=(
        "After a RST the entry is in CLOSE for 10 s, and there a SYN of the server's is INVALID as it is in an"
        " established connection. It leaks as well, or is dropped, and no entry comes of it."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks",),
    steps=_reset,
    demands=(alone,),
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)

CASES: Final = (CASE, _TWIN)
