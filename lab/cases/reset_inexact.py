# SPDX-License-Identifier: MIT
"""A reset in the window that is not exact, from either side."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.netns.mib import tcp_counters
from lab.scenario import ConnectionScenario
from lab.wire.craft import Segment

_TIMEOUT: Final = "net/netfilter/nf_conntrack_tcp_timeout_"


def expect_shortened_entry(scenario: ConnectionScenario) -> None:
    """Expect the entry to be as ESTABLISHED as before, with less time than it had: kernels differ in how much less."""
    close, unacknowledged = (
        int(scenario.node.namespace.sysctl(_TIMEOUT + name)) for name in ("close", "unacknowledged")
    )
    scenario.expect_entry(state="ESTABLISHED", timeout=range(unacknowledged + 1))
    entry = scenario.entry()
    if entry is not None and entry.timeout is not None:
        shortened = "CLOSE" if entry.timeout <= close else "an unacknowledged segment"
        scenario.find(f"after an inexact RST the entry has the timeout of {shortened}")


async def _reset(scenario: ConnectionScenario, reset: Segment, victim: str) -> None:
    # The challenge would refresh the entry, so it is lost on its way.
    with scenario.losing_from(victim):
        await scenario.inject(reset)
    challenges = tcp_counters(scenario.lab.hosts[victim].namespace)["TCPChallengeACK"]
    scenario.expect(f"a challenge of {victim}'s", challenges == 1, challenges)
    scenario.expect_error(victim, None)
    expect_shortened_entry(scenario)
    await scenario.go_on()


async def _from_server(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await _reset(scenario, scenario.from_server(1, flags="R"), scenario.client_end.host)


async def _from_client(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await _reset(scenario, scenario.from_client(1, flags="R"), scenario.server_end.host)


CASE: Final = Case(
    name="reset-inexact",
    title="a RST from the server one number ahead, and the answer to it is lost",
    story=(
        "It is in the window, so conntrack accepts and translates it, but the client's kernel takes only the exact "
        "number for a reset and answers with a challenge acknowledgement. Conntrack stays ESTABLISHED for that, and "
        "shortens the entry's life: to the 10 s of CLOSE, or to 300 s on Linux from 7.3 on and in stable series that "
        "have its change. Where the challenge is lost and both ends are silent for so long, the entry is gone and "
        "the connection with it."
    ),
    threads=(
        "RFC 5961, 3.2",
        "torvalds/linux be0502a3f2e9",
    ),
    scenario=ConnectionScenario,
    steps=_from_server,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="reset-inexact-from-client",
    title="a RST from the client one number ahead, and the answer to it is lost",
    story=(
        "The server's kernel does as the client's did: it challenges whoever sent the number, and stays. Conntrack "
        "shortens the entry's life just as much, whichever side the RST came from. Traffic lengthens it again, so a "
        "connection that is in use never notices."
    ),
    steps=_from_client,
)

CASES: Final = (CASE, _TWIN)
