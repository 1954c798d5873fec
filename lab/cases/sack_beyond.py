# SPDX-License-Identifier: MIT
"""The acknowledgement is perfect, and a SACK block is not."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario
from lab.wire.craft import Segment


def _segment(scenario: ConnectionScenario, payload: bytes = b"") -> Segment:
    edge = scenario.client.sent + 1000
    return scenario.from_server(0, payload, options=[("SAck", (edge - 500, edge))], timestamps=None)


CASE: Final = Case(
    name="sack-beyond",
    title="the next segment with a perfect acknowledgement, and a SACK block beyond what the client sent",
    story=(
        "Conntrack takes the right edge of a SACK block for an acknowledgement, and this one is of bytes that "
        "it has not seen. So the segment is INVALID on every kernel, in the window and with exact numbers. "
        "The client's RST copies the acknowledgement, which is perfect, and kills."
    ),
    threads=(
        "RFC 2018",
        "net/netfilter/nf_conntrack_proto_tcp.c",
    ),
    scenario=ConnectionScenario,
    steps=Injection(_segment),
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="sack-beyond-with-data",
    title="the next bytes with a perfect acknowledgement, and a SACK block beyond what the client sent",
    story=(
        "The bytes are the very next ones and acknowledge exactly what was received; only the block of a few "
        "bytes among the options is wrong. That is enough for INVALID on every kernel. The client's RST copies "
        "the perfect acknowledgement, and kills."
    ),
    steps=Injection(lambda scenario: _segment(scenario, scenario.next_bytes(100))),
)

CASES: Final = (CASE, _TWIN)
