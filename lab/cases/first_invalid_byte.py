# SPDX-License-Identifier: MIT
"""The first byte that every kernel calls INVALID, computed from the window as the node saw it."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario
from lab.wire.craft import Segment


def _segment(scenario: ConnectionScenario, payload: bytes = b"") -> Segment:
    node = scenario.window_at_node()
    # The overshoot counts from the end of the segment, and one more (tcp_in_window: end - td_maxend + 1).
    end = node.reply.limit + node.original.window
    return scenario.from_server(end - len(payload) - scenario.server.sent, payload)


CASE: Final = Case(
    name="first-invalid-byte",
    title="a segment that ends one window and one byte beyond what the client granted",
    story=(
        "From Linux 6.1 on conntrack ignores an overshoot of up to one window, for some senders send more "
        "than they may. One byte more is INVALID on every kernel. The lab computes that byte from the packets "
        "that the node judged, and the kernel agrees to the byte."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "torvalds/linux cf97769c761a",
    ),
    scenario=ConnectionScenario,
    steps=Injection(_segment, answer="ACK"),
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="first-invalid-byte-with-data",
    title="100 bytes that end one window and one byte beyond what the client granted",
    story=(
        "How far a segment is beyond counts from its end, once its start is beyond the window at all. So with "
        "data it may start a hundred numbers earlier, and is INVALID at the same last byte. The lab computes "
        "both, and the kernel agrees."
    ),
    steps=Injection(lambda scenario: _segment(scenario, b"x" * 100), answer="ACK"),
)

CASES: Final = (CASE, _TWIN)
