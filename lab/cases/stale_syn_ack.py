# SPDX-License-Identifier: MIT
"""The answer to an older SYN comes to a newer one."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import (
    DROPPED,
    IGNORED,
    IGNORED_ALWAYS,
    IGNORED_UNLESS_LIBERAL,
    LEAKED,
    LEAKS_UNLESS_LIBERAL,
    Case,
    row,
)
from lab.cases.demands import alone, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ScriptedScenario
from lab.scenario.scripted import OPTIONS, WINDOW
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


async def _steps_again(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.forget_entry()
    client, server = scenario.client, scenario.server
    client.begin(_LATER)
    server.begin(_LATER)
    await scenario.ask()
    server.syn_ack(acknowledge=1 - _LATER)
    client.syn()
    await scenario.judged()
    # With another window, by which the two are told apart.
    scenario.judge(server.send("SA", 0, 1 - _LATER, window=WINDOW, options=OPTIONS))
    await scenario.judged()
    client.begin(2 * _LATER)
    client.syn()
    server.send("RA", 1, 1 - 2 * _LATER)
    await scenario.judged()
    server.begin(2 * _LATER)
    server.syn_ack()
    fresh = await scenario.last_judgement()
    client.ack()
    await scenario.judged()
    entry = scenario.entry()
    state = entry.tcp_state if entry else "gone"
    scenario.find(f"behind stale SYN,ACKs and a stale RST the right one is {fresh}, and then the entry is {state}")
    if fresh is Judgement.ACCEPTED:
        scenario.expect_entry(state="ESTABLISHED", assured=True)


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
    demands=(one_endpoint, alone),
    expectations={
        Behaviour.STRICT: LEAKS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)

AGAIN: Final = dataclasses.replace(
    CASE,
    name="stale-syn-ack-again",
    title="the stale answer comes again and again, then a RST, and then the right one",
    story=(
        "A server that hangs on to an old connection sends its SYN,ACK again and again, gives up by a RST, and answers"
        " the next SYN rightly. Up to Linux 5.16 conntrack took the first for the beginning of the server's side, so"
        " the right one was out of the window, and the port connected no more. From 5.17 on a SYN,ACK that is further"
        " on begins it anew. A liberal conntrack believes the stale answer: it ignores what comes later, and the"
        " connection lives on an entry in CLOSE, which 10 s of silence end."
    ),
    threads=("torvalds/linux 82b72cb94666", "net/netfilter/nf_conntrack_proto_tcp.c, tcp_init_sender"),
    steps=_steps_again,
    expectations={
        Behaviour.STRICT: row(LEAKED, DROPPED, IGNORED),
        Behaviour.IGNORES_LATE: IGNORED_ALWAYS,
    },
)

CASES: Final = (CASE, AGAIN)
