# SPDX-License-Identifier: MIT
"""A reset below what the client has acknowledged."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, LEAKS_UNLESS_DROPPED, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario


async def _steps_accepted(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.set_node_sysctl("net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", 1)
    await scenario.inject(scenario.from_server(-1, flags="R"))
    scenario.expect_answer("")
    scenario.expect_entry(state="ESTABLISHED")
    await scenario.go_on()


CASE: Final = Case(
    name="reset-behind",
    title="a RST from the server one number behind",
    story=(
        "Since it may have been forged by someone who saw an old segment, conntrack calls a RST below the "
        "client's acknowledgement INVALID, whatever the window says and however liberal it is. It leaks and "
        "is never answered. The connection lives."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, the state CLOSE",
        "torvalds/linux be0502a3f2e9",
    ),
    scenario=ConnectionScenario,
    steps=Injection(lambda scenario: scenario.from_server(-1, flags="R"), answer="", stranger="", reason="invalid rst"),
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="reset-behind-accepted",
    title="the same RST, and nf_conntrack_tcp_ignore_invalid_rst=1 on the node",
    story=(
        "Where the sysctl is set (from Linux 5.14 on), conntrack leaves it to the ends whether a RST is old. The RST "
        "is accepted, translated and delivered, and being inexact it does not close the entry. The client's kernel "
        "drops it for its number, in silence."
    ),
    threads=("Documentation/networking/nf_conntrack-sysctl.rst", "torvalds/linux 1da4cd82dd18"),
    steps=_steps_accepted,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)

CASES: Final = (CASE, _TWIN)
