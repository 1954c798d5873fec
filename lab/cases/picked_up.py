# SPDX-License-Identifier: MIT
"""Conntrack sees a connection for the first time when it is in its middle."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED_ALWAYS, Case, always, on_every_kernel, row
from lab.cases.demands import alone, not_masqueraded, one_endpoint
from lab.cases.entry_deleted_strictly import LOOSE
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SYN
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome


async def _establish_unseen(scenario: ConnectionScenario) -> None:
    """Connect straight to the pod before any rule of the node asks for conntrack."""
    with scenario.past_conntrack(scenario.roles.servers[0][1].port):
        await scenario.establish(by_service=False)
    scenario.recorder.read()
    handshake = [one.state for one in scenario.recorder.judged if one.packet.tcp and one.packet.tcp.flags & SYN]
    # Each node on the way sees both of its packets.
    scenario.expect("conntrack saw no handshake", len(handshake) >= 2 and set(handshake) == {"untracked"}, handshake)


async def _steps(scenario: ConnectionScenario) -> None:
    await _establish_unseen(scenario)
    await scenario.client_speaks(judged=False)
    await scenario.inject(scenario.from_server(FAR, b"far off"))
    await scenario.go_on()


async def _steps_strictly(scenario: ConnectionScenario) -> None:
    await _establish_unseen(scenario)
    scenario.set_node_sysctl(LOOSE, 0)
    await scenario.client_speaks()
    scenario.expect_no_entry()
    if scenario.unheard:
        await scenario.retransmissions(1)
    else:
        await scenario.go_on()


async def _steps_by_service(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.forget_entry()
    await scenario.client_speaks(judged=False)
    scenario.expect_entry(state="ESTABLISHED")
    await scenario.inject(scenario.from_server(FAR, b"far off"))
    await scenario.go_on()


_UNTRACKED: Final = Expectation(Judgement.UNTRACKED, Outcome.DELIVERED)
_UNTRANSLATED: Final = Expectation(Judgement.INVALID, Outcome.DELIVERED)
_STALLED: Final = Expectation(Judgement.INVALID, Outcome.STALLED)

CASE: Final = Case(
    name="picked-up",
    about_answers=False,
    title="a connection to the pod that is older than the node's rules, and then data far beyond the window",
    story=(
        "Conntrack did not see the handshake and knows no window scale, so it takes the connection up where it is "
        "and is liberal about both its sides for good (tcp_new). Data that would be INVALID in any other connection is "
        "accepted in this one. Whoever tries the bug on a connection that is older than the rules will not see it."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_new", "Documentation/networking/nf_conntrack-sysctl.rst"),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=_UNTRACKED)),
)

_BY_SERVICE: Final = Case(
    name="picked-up-by-service",
    title="the entry was deleted, the client has spoken, and then data far beyond the window",
    story=(
        "A connection by the VIP that conntrack took up again after its entry was deleted is liberal as well. So the "
        "packet that kills a fresh connection is accepted, translated and harmless here. A node whose table was once "
        "flushed is cured of the bug until its clients connect anew."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_new", "kubernetes/kubernetes#100698"),
    scenario=ConnectionScenario,
    steps=_steps_by_service,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    demands=(alone, one_endpoint, not_masqueraded),
)

_STRICTLY: Final = Case(
    name="picked-up-strictly",
    about_answers=False,
    title="a connection to the pod that is older than the node's rules, and nf_conntrack_tcp_loose=0",
    story=(
        "With the sysctl conntrack takes nothing up in its middle, and every segment of the connection is INVALID. "
        "As nothing has to be translated, it goes on as if nothing had been, and being liberal changes nothing. With "
        "the drop it hangs: here the fix is what kills."
    ),
    threads=("kubernetes/kubernetes#94861", "Documentation/networking/nf_conntrack-sysctl.rst"),
    scenario=ConnectionScenario,
    steps=_steps_strictly,
    expectations=on_every_kernel(row(_UNTRANSLATED, _STALLED, _UNTRANSLATED, untracked=_UNTRACKED)),
)

CASES: Final = (CASE, _BY_SERVICE, _STRICTLY)
