# SPDX-License-Identifier: MIT
"""The entry is gone, and the server speaks first: no fix helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome


def _steps(forget: Callable[[ConnectionScenario], None]) -> Callable[[ConnectionScenario], Awaitable[None]]:
    async def steps(scenario: ConnectionScenario) -> None:
        await scenario.establish()
        forget(scenario)
        scenario.expect_no_entry()
        await scenario.server_speaks()
        await scenario.go_on()
        scenario.expect_counter("invalid", 0)

    return steps


CASE: Final = Case(
    name="entry-deleted",
    title="the connection's entry is deleted, and the server sends next",
    story=(
        "Without its entry the server's segment is the first of a connection that conntrack does not know, "
        "and by nf_conntrack_tcp_loose=1 it is taken for one that began earlier: NEW, not INVALID. It leaves "
        "without translation, and the client's RST kills. Nothing was INVALID, so neither the drop nor being "
        "liberal has anything to do."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "Documentation/networking/nf_conntrack-sysctl.rst",
    ),
    scenario=ConnectionScenario,
    steps=_steps(ConnectionScenario.forget_entry),
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
)

_FLUSHED: Final = dataclasses.replace(
    CASE,
    name="entry-flushed",
    title="somebody flushes the node's conntrack table, and the server sends next",
    story=(
        "`conntrack -F` on a node, often said to clear a fault, deletes the entries of all its connections at once. "
        "Each whose server speaks before its client then goes the way of entry-deleted: NEW, untranslated, reset. "
        "There is no fix for it but not to do it, or to let the clients speak first."
    ),
    threads=("kubernetes/kubernetes#100698", "conntrack(8)"),
    steps=_steps(ConnectionScenario.flush_entries),
)

CASES: Final = (CASE, _FLUSHED)
