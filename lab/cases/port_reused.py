# SPDX-License-Identifier: MIT
"""A client uses its port again for the same service: what the old entry makes of the new SYN."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import IGNORED_ALWAYS, Case, always, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ScriptedScenario
from lab.verdict import Outcome

_LATER: Final = 4_000_000  # how far initial sequence numbers are apart; more than any window in the script


async def _steps_after_close(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.client.fin()
    scenario.server.fin()
    scenario.client.ack()
    await scenario.expect_judgements(*[Judgement.ACCEPTED] * 3)
    scenario.expect_entry(state="TIME_WAIT", timeout=range(110, 121))
    await _connect_anew(scenario, Judgement.NEW)


async def _steps_after_reset(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.client.rst()
    await scenario.expect_judgements(Judgement.ACCEPTED)
    scenario.expect_entry(state="CLOSE", timeout=range(11))
    await _connect_anew(scenario, Judgement.NEW)


async def _steps_after_server_reset(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.server.rst()
    await scenario.expect_judgements(Judgement.ACCEPTED)
    scenario.expect_entry(state="CLOSE", timeout=range(11))
    await _connect_anew(scenario, Judgement.IGNORED)


async def _connect_anew(scenario: ScriptedScenario, word: Judgement) -> None:
    scenario.client.begin(_LATER)
    scenario.server.begin(_LATER)
    scenario.judge(await scenario.ask())
    scenario.server.syn_ack()
    scenario.client.ack()
    scenario.server.data(100)
    await scenario.expect_judgements(word, *[Judgement.ACCEPTED] * 3)
    scenario.expect_entry(state="ESTABLISHED")


async def _steps_challenged(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.forget_entry()
    # What the server still waits for, by the new connection's numbers.
    old = scenario.client.first + scenario.client.next - _LATER
    scenario.client.begin(_LATER)
    await scenario.ask()
    scenario.judge(scenario.server.ack(acknowledge=old))
    await scenario.expect_judgements(Judgement.NEW, Judgement.IGNORED)
    scenario.client.rst(old)
    reset = await scenario.last_judgement()
    scenario.find(f"the RST that answers a challenge is {reset}")
    if reset is Judgement.ACCEPTED:
        scenario.expect_entry(state="CLOSE")
        scenario.server.begin(_LATER)
        await scenario.ask()
        scenario.server.syn_ack()
        scenario.client.ack()
        await scenario.expect_judgements(Judgement.NEW, Judgement.ACCEPTED, Judgement.ACCEPTED)


async def _steps_syn_twice(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.client.rst()
    scenario.client.begin(_LATER)
    scenario.client.syn()
    scenario.client.begin(2 * _LATER)
    scenario.judge(await scenario.ask())
    scenario.server.begin(_LATER)
    scenario.server.syn_ack()
    scenario.client.ack()
    await scenario.expect_judgements(
        Judgement.ACCEPTED, Judgement.NEW, Judgement.NEW, Judgement.ACCEPTED, Judgement.ACCEPTED
    )
    # Within 500 << 10 bytes, and beyond twice what the SYN itself offered.
    scenario.server.data(100, 200_000)
    scenario.find(f"after a second SYN, data within the scaled window is {await scenario.last_judgement()}")


_NEW: Final = on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED))

CASE: Final = Case(
    name="port-reused",
    title="a new SYN where the entry is in TIME_WAIT",
    story=(
        "Both sides have closed, so conntrack gives the entry up and takes the SYN for the first packet of another "
        "connection, though TIME_WAIT has most of its two minutes left. The rules choose an endpoint anew. Nothing "
        "breaks."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, the state SYN_SENT", "RFC 9293, 3.6.1"),
    scenario=ScriptedScenario,
    steps=_steps_after_close,
    demands=(one_endpoint,),
    expectations=_NEW,
)

_RESET: Final = dataclasses.replace(
    CASE,
    name="port-reused-after-reset",
    title="a new SYN where the client has reset the connection before",
    story=(
        "The last word was the client's own RST, so a SYN of the same client is a fresh start: the entry is given up, "
        "and the SYN is NEW. That needs no waiting for the 10 s of CLOSE. The rules choose an endpoint anew."
    ),
    steps=_steps_after_reset,
)

_SERVER_RESET: Final = dataclasses.replace(
    CASE,
    name="port-reused-after-server-reset",
    title="a new SYN where the server has reset the connection before",
    story=(
        "The last word was the server's, so conntrack is not sure that the connection is over: it ignores the SYN, "
        "lets it through with the old translation and waits for the answer. The server's SYN,ACK acknowledges it, and "
        "the entry is in step again. But the SYN went to the old endpoint, whether it still serves or not."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, the state IGNORE", "kubernetes/kubernetes#48719"),
    steps=_steps_after_server_reset,
    demands=(),  # the old translation stays
    expectations=on_every_kernel(IGNORED_ALWAYS),
)

_CHALLENGED: Final = dataclasses.replace(
    CASE,
    name="port-reused-challenged",
    title="a new SYN to a server that still has the old connection, and the node has no entry",
    story=(
        "The server answers with a challenge acknowledgement, which conntrack ignores and lets through; the client "
        "answers that with a RST of the old connection's number, to clear the way. Since Linux 6.2 (and 6.1.y) the "
        "RST is accepted, and the next SYN is NEW. Before, it was INVALID: addressed to the VIP, which is nowhere, it "
        "never reached the server, and SYN and challenge went on for ever."
    ),
    threads=("torvalds/linux c410cb974f2b", "RFC 5961, 4.2"),
    steps=_steps_challenged,
    demands=(one_endpoint, not_masqueraded),
    expectations=on_every_kernel(IGNORED_ALWAYS),
)

_TWICE: Final = dataclasses.replace(
    CASE,
    name="port-reused-syn-twice",
    title="two SYNs with different numbers before the server answers, and data within the scaled window",
    story=(
        "The second SYN makes conntrack take the client's numbers and options anew. From Linux 5.17 to 6.7 it compared "
        "window scales with a server that had not spoken yet and forgot the client's, so that later data beyond the "
        "unscaled window was INVALID: the bug of the report, with nothing wrong on the wire. From 6.8 on (and in "
        "6.1.y, 6.6.y) the data is accepted."
    ),
    threads=("torvalds/linux fb366fc7541a", "RFC 7323, 2.2"),
    steps=_steps_syn_twice,
)

CASES: Final = (CASE, _RESET, _SERVER_RESET, _CHALLENGED, _TWICE)
