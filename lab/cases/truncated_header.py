# SPDX-License-Identifier: MIT
"""A header that claims to be longer than the packet."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario

CASE: Final = Case(
    name="truncated-header",
    title="a segment of 20 bytes whose header claims 60",
    story=(
        "The data offset points beyond the packet's end, so conntrack cannot read the header and calls the packet "
        "INVALID; the kernel's reason is that it is truncated. It leaks. The client cannot read it either and drops "
        "it in silence."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet",),
    scenario=ConnectionScenario,
    steps=Injection(
        lambda scenario: scenario.from_server(header_words=15, timestamps=None),
        answer="",
        stranger="",
        reason="truncated packet",
    ),
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
