# SPDX-License-Identifier: MIT
"""The table is full: what needs a new entry is dropped, and nothing is INVALID."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import alone, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario, RefusedError
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#18604",
    "net/netfilter/nf_conntrack_core.c (__nf_conntrack_alloc, early_drop)",
)


async def _new_connection(scenario: ConnectionScenario) -> None:
    scenario.fill_table()
    with suppress(RefusedError):
        await scenario.establish()
    await scenario.expect_nothing(scenario.roles.servers[0][0], source=scenario.roles.client_address)
    sent = len(scenario.seen(scenario.roles.client, flags="S", outgoing=True))
    scenario.expect_counter("drop", sent)
    scenario.expect_counter("invalid", 0)
    scenario.expect_no_entry()


async def _old_connection(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.fill_table()
    await scenario.server_speaks()
    await scenario.go_on()
    scenario.expect_counter("drop", 0)


async def _entry_lost(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.fill_table()
    scenario.forget_entry()
    scenario.fill_table()  # somebody else has taken its place
    await scenario.server_speaks()
    await scenario.retransmissions(2)
    scenario.expect_counted("drop", 3)
    scenario.expect_counter("invalid", 0)
    await scenario.expect_nothing(scenario.roles.client, source=scenario.server_end.own_address)
    await scenario.expect_nothing(scenario.server_end.host, flags="R")


async def _early_drop(scenario: ConnectionScenario) -> None:
    scenario.fill_table(assured=False)
    await scenario.establish()
    scenario.expect_counted("early_drop")
    scenario.expect_counter("drop", 0)
    await scenario.server_speaks()
    await scenario.go_on()


NEW_CONNECTION: Final = Case(
    name="table-full-new-connection",
    title="conntrack's table is full, and a client connects",
    story=(
        "The SYN needs an entry and there is none to be had, so conntrack drops it, counts that under drop, and says"
        " so in the machine's log. That is not INVALID: no rule sees the packet, so no fix has anything to do with it,"
        " though capacity is often named among INVALID's causes. The client hears nothing and tries again until it"
        " gives up."
    ),
    threads=_THREADS,
    scenario=ConnectionScenario,
    steps=_new_connection,
    demands=(alone, one_endpoint),
    expectations=on_every_kernel(always(None, Outcome.REFUSED)),
    slow=True,
)

OLD_CONNECTION: Final = Case(
    name="table-full-old-connection",
    title="control: the table is full, and a connection that has its entry goes on",
    story=(
        "A packet that finds its entry needs no new one, so a full table does nothing to it. Both directions go on,"
        " translated as ever. Whoever is told that only new connections fail should think of the table first."
    ),
    threads=_THREADS,
    scenario=ConnectionScenario,
    steps=_old_connection,
    demands=(alone, one_endpoint),
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED)),
    slow=True,
)

ENTRY_LOST: Final = Case(
    name="table-full-entry-lost",
    title="a connection's entry is gone, another has taken its place in the full table, and the server sends next",
    story=(
        "With room in the table the server's segment would get an entry of its own, leak and be answered by a RST."
        " Here it is dropped before any rule, so no stranger's packet reaches the client and nobody resets anything."
        " The server sends it again and again: the connection hangs for as long as the table is full."
    ),
    threads=_THREADS,
    scenario=ConnectionScenario,
    steps=_entry_lost,
    demands=(alone, one_endpoint),
    expectations=on_every_kernel(always(None, Outcome.STALLED)),
    slow=True,
)

EARLY_DROP: Final = Case(
    name="early-drop",
    title="the table is full of flows that nobody answered, and a client connects",
    story=(
        "Before it refuses a packet, conntrack looks through eight buckets of its hash for an entry that is not"
        " assured, and pushes that out. In a table full of unanswered flows it finds one, counts it under early_drop,"
        " and the connection comes about. So it is flows in use that make a table full, and a flood of datagrams"
        " does it only while it is answered."
    ),
    threads=_THREADS,
    scenario=ConnectionScenario,
    steps=_early_drop,
    demands=(alone, one_endpoint),
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED)),
    slow=True,
)

CASES: Final = (NEW_CONNECTION, OLD_CONNECTION, ENTRY_LOST, EARLY_DROP)
