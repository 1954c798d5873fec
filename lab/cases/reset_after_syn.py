# SPDX-License-Identifier: MIT
"""A RST behind a SYN that conntrack has let through without believing it: from either side."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, IGNORED_ALWAYS, LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.cases.demands import alone
from lab.evidence.judgement import Judgement
from lab.scenario import ScriptedScenario
from lab.vocabulary import Behaviour

_LATER: Final = 4_000_000  # how far the SYN's number is ahead; more than any window in the script
_FAR: Final = 2**29  # beyond every window that scaling allows (RFC 7323, 2.3)


async def _ignored_syn(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    scenario.client.data(100)
    scenario.server.data(100)
    await scenario.expect_judgements(Judgement.ACCEPTED, Judgement.ACCEPTED)


async def _from_client(scenario: ScriptedScenario) -> None:
    await _ignored_syn(scenario)
    client, server = scenario.client, scenario.server
    scenario.judge(client.send("S", _LATER))
    await scenario.expect_judgements(Judgement.IGNORED)
    own_syn = client.first + client.next - server.first  # by the server's numbers, as acknowledgements are told
    client.send("RA", _FAR, own_syn)
    reset = await scenario.last_judgement()
    entry = scenario.entry()
    scenario.find(f"a RST that acknowledges its own side's SYN is {reset}: {entry.tcp_state if entry else 'no entry'}")
    if reset is Judgement.INVALID:
        scenario.expect_entry(state="ESTABLISHED", assured=True)


async def _from_server(scenario: ScriptedScenario) -> None:
    await _ignored_syn(scenario)
    scenario.client.send("S", _LATER)
    await scenario.expect_judgements(Judgement.IGNORED)
    scenario.judge(scenario.server.send("RA", -scenario.server.first))
    if await scenario.last_judgement() is Judgement.INVALID:
        scenario.expect_reason("invalid rst")
    else:
        scenario.expect_entry(state="CLOSE", timeout=range(11))


CASE: Final = Case(
    name="reset-after-syn",
    title="a SYN from the client's port in the established connection, and a RST of the same side behind it",
    story=(
        "Conntrack ignores the SYN and waits for what the other side says to it: a RST that acknowledges it closes the"
        " entry, whatever its number. From Linux 5.14 on nobody looked at which side it came from: a SYN and a wild RST"
        " by somebody who knows only addresses and ports took an entry from a day to the 10 s of CLOSE. From 7.1 on"
        " (and 7.0.12, 6.18.35, 6.12.93, 6.6.143, 6.1.176, 5.15.210) such a RST is out of the window, and INVALID; a"
        " liberal conntrack believes it as before. Seen: Debian's 6.18.15 closes the entry, 6.18.44 keeps it."
    ),
    threads=("torvalds/linux bed6e04be8e6", "CVE-2026-63913", "torvalds/linux c4edc3ccbc63"),
    scenario=ScriptedScenario,
    steps=_from_client,
    expectations=on_every_kernel(IGNORED_ALWAYS),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="reset-after-syn-from-server",
    title="control: the same SYN, and the RST of a server that has forgotten the connection",
    story=(
        "This is what the rule is for: a server that was started anew knows no connection, and answers the SYN with a"
        " RST of number 0. From Linux 5.14 on conntrack believes it, translates it and closes the entry, so that the"
        " client hears that there is nobody. Before, the number is below what the client has acknowledged, so the RST"
        " is INVALID, leaks, and the client waits for its time-out."
    ),
    threads=("torvalds/linux c4edc3ccbc63", "RFC 9293, 3.10.7.1"),
    steps=_from_server,
    demands=(alone,),
    expectations={
        # Told by 5.10: no kernel between 5.14 and 6.0 was seen.
        Behaviour.STRICT: LEAKS_UNLESS_DROPPED,
        Behaviour.IGNORES_LATE: ACCEPTED_ALWAYS,
    },
)

CASES: Final = (CASE, _TWIN)
