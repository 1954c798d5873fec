# SPDX-License-Identifier: MIT
"""The last byte beyond the window that newer kernels let through."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

from lab.cases.case import ACCEPTED, IGNORED, KILLS_UNLESS_LIBERAL, Case, row
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome
from lab.vocabulary import Behaviour
from lab.wire.craft import Segment


def _segment(scenario: ConnectionScenario, payload: bytes = b"") -> Segment:
    node = scenario.window_at_node()
    end = node.reply.limit + node.original.window - 1
    return scenario.from_server(end - len(payload) - scenario.server.sent, payload)


def _steps(payload: bytes = b"") -> Callable[[ConnectionScenario], Awaitable[None]]:
    async def steps(scenario: ConnectionScenario) -> None:
        await scenario.establish()
        await scenario.inject(_segment(scenario, payload))
        scenario.expect_answer("ACK")
        ignored = Judgement.IGNORED in scenario.judgements_of_nodes().values()
        server = scenario.server_end.own_address
        await scenario.go_on()
        if ignored:
            words = [one.judgement for one in scenario.recorder.judged if one.packet.source == server]
            scenario.expect("INVALID for what the server's own stack says later", Judgement.INVALID in words, words)

    return steps


#: Ignored now, and the connection killed by what comes of it.
_DELAYED: Final = row(Expectation(Judgement.IGNORED, Outcome.RESET), IGNORED, ACCEPTED)

CASE: Final = Case(
    name="last-ignored-byte",
    title="a segment that ends one byte before the first INVALID one",
    story=(
        "Up to Linux 6.0 every byte beyond what the client granted is INVALID, and this segment kills at "
        "once. From 6.1 on it is let through and translated, but conntrack takes its end for what the server "
        "has sent, finds the client's answers too old from then on, and no longer learns what the client "
        "sends. So the server's next acknowledgement is INVALID, leaks and kills, with no bad packet in "
        "sight; the drop keeps the connection alive, but for good without those acknowledgements."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "torvalds/linux 6e250dcbff1d",
    ),
    scenario=ConnectionScenario,
    steps=_steps(),
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: _DELAYED,
    },
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="last-ignored-byte-with-data",
    title="100 bytes that end one byte before the first INVALID one",
    story=(
        "The client throws the bytes away, for they are beyond its window, but from Linux 6.1 on conntrack has "
        "noted their end as sent. What the client acknowledges is too old for it from then on, exactly as after "
        "the empty segment. The connection dies of the server's next acknowledgement, not of these bytes."
    ),
    steps=_steps(b"x" * 100),
)

CASES: Final = (CASE, _TWIN)
