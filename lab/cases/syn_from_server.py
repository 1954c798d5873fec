# SPDX-License-Identifier: MIT
"""The server begins anew in the middle of a connection."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, Injection, expect_number_0, on_every_kernel
from lab.scenario import ConnectionScenario

CASE: Final = Case(
    name="syn-from-server",
    title="a SYN from the server's port in the established connection",
    story=(
        "In the direction of the answer a SYN has no place in an established connection, so it is INVALID by "
        "conntrack's table of states, and being liberal changes nothing. The client answers the stranger's "
        "SYN with a RST of number 0. The server waits for another number, and lives."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks",),
    scenario=ConnectionScenario,
    steps=Injection(
        lambda scenario: scenario.from_server(flags="S", acknowledge=0),
        answer="RST,ACK",
        stranger="RST,ACK",
        besides=expect_number_0,
    ),
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
