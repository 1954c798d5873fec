# SPDX-License-Identifier: MIT
"""A handshake's second packet that comes again."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_ALWAYS, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario

CASE: Final = Case(
    name="syn-ack-again",
    title="a SYN-ACK in the established connection",
    story=(
        "By conntrack's table of states such a packet is to be ignored: it is let through and translated, "
        "with a line in the log. The client answers with a challenge acknowledgement. Nothing leaks and "
        "nothing breaks on any kernel."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks",
        "RFC 5961, 4.2",
    ),
    scenario=ConnectionScenario,
    steps=Injection(lambda scenario: scenario.from_server(flags="SA"), answer="ACK"),
    expectations=on_every_kernel(IGNORED_ALWAYS),
)
