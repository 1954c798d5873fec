# SPDX-License-Identifier: MIT
"""A reset from the server that does not fit is lost."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import LEAKS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.cases.reset_inexact import expect_shortened_entry
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(FAR, flags="RA"))
    scenario.expect_answer("", stranger="")
    if Judgement.INVALID in scenario.judgements_of_nodes().values():
        usual = int(scenario.node.namespace.sysctl("net/netfilter/nf_conntrack_tcp_timeout_established"))
        scenario.expect_entry(state="ESTABLISHED", timeout=range(usual - 60, usual + 1))
    else:
        expect_shortened_entry(scenario)
    await scenario.go_on()


CASE: Final = Case(
    name="reset-out-of-window",
    title="a RST from the server far beyond the window",
    story=(
        "Conntrack calls it INVALID, so it leaks from the pod's address, and the client has no connection with that "
        "address to reset; a RST is never answered, so nothing comes of it. With a real server's reset this is how a "
        "client never learns that the server is gone. A liberal conntrack accepts it, translates it and gives its "
        "entry as little time as after an inexact RST in the window (reset-inexact); the client's kernel drops it."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "RFC 9293, 3.10.7.1",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(LEAKS_UNLESS_LIBERAL),
)
