# SPDX-License-Identifier: MIT
"""Both sides have closed, the last acknowledgement is missing, and the client begins anew."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, IGNORED_ALWAYS, Case, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ScriptedScenario

_LATER: Final = 4_000_000  # how far initial sequence numbers are apart; more than any window in the script


async def _close(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.client.fin()
    scenario.server.fin()
    await scenario.expect_judgements(Judgement.ACCEPTED, Judgement.ACCEPTED)
    scenario.expect_entry(state="LAST_ACK", timeout=range(31))


async def _challenged(scenario: ScriptedScenario) -> None:
    await _close(scenario)
    old = scenario.client.first + scenario.client.next - _LATER  # what the server waits for, by the new numbers
    scenario.client.begin(_LATER)
    scenario.client.syn()
    await scenario.expect_judgements(Judgement.IGNORED)
    scenario.judge(scenario.server.ack(acknowledge=old))
    await scenario.expect_judgements(Judgement.IGNORED)
    scenario.expect_reason("challenge-ack ignored")
    scenario.expect_entry(state="LAST_ACK")
    scenario.client.rst(old)
    await scenario.expect_judgements(Judgement.ACCEPTED)
    scenario.expect_entry(state="CLOSE", timeout=range(11))
    scenario.server.begin(_LATER)
    await scenario.ask()
    scenario.server.syn_ack()
    scenario.client.ack()
    await scenario.expect_judgements(Judgement.NEW, Judgement.ACCEPTED, Judgement.ACCEPTED)
    scenario.expect_entry(state="ESTABLISHED")


async def _unchallenged(scenario: ScriptedScenario) -> None:
    await _close(scenario)
    scenario.judge(scenario.server.ack())
    await scenario.expect_judgements(Judgement.ACCEPTED)
    scenario.expect_entry(state="TIME_WAIT", timeout=range(110, 121))


CASE: Final = Case(
    name="last-ack-challenged",
    title="the last ACK of a close is lost, the client uses its port again, and the server challenges the SYN",
    story=(
        "The server still waits for the ACK of its FIN, so it answers the new SYN by a challenge: an ACK of the old"
        " numbers. In LAST_ACK any ACK would count as the last one and lead to TIME_WAIT, while the two ends are not"
        " done; conntrack remembers that it has ignored a SYN, and ignores the challenge as well. The client's RST"
        " clears the way, and its next SYN is NEW."
    ),
    threads=("torvalds/linux b3cad287d13b", "RFC 5961, 4.2"),
    scenario=ScriptedScenario,
    steps=_challenged,
    demands=(one_endpoint, not_masqueraded),
    expectations=on_every_kernel(IGNORED_ALWAYS),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="last-ack-unchallenged",
    title="control: the same ACK of the server's, and no SYN before it",
    story=(
        "Without a SYN there is nothing to challenge, so the ACK is taken for the last one: the entry is in TIME_WAIT"
        " and lives for two minutes instead of the 30 s of LAST_ACK. Conntrack does not look at whose FIN is"
        " acknowledged by it."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks",),
    steps=_unchallenged,
    demands=(),
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)

CASES: Final = (CASE, _TWIN)
