# SPDX-License-Identifier: MIT
"""An acknowledgement that is too old to be true."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, LEAKS_UNLESS_LIBERAL, Case, Injection
from lab.scenario import ConnectionScenario
from lab.vocabulary import Behaviour

CASE: Final = Case(
    name="ack-below",
    title="the next segment, but its acknowledgement is 70,000 bytes old",
    story=(
        "Conntrack takes an acknowledgement for possible as long as it is no older than a window, and than "
        "66,000 bytes. Up to Linux 6.0 an older one is INVALID and leaks, but the client's RST is as old as "
        "the acknowledgement, and the server does not even answer it. From 6.1 on such a segment is taken for "
        "delayed, and ignored."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "torvalds/linux 6e250dcbff1d",
    ),
    scenario=ConnectionScenario,
    steps=Injection(lambda scenario: scenario.from_server(acknowledge=-70_000), answer="ACK"),
    expectations={
        Behaviour.STRICT: LEAKS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="ack-below-with-data",
    title="the next bytes, but their acknowledgement is 70,000 bytes old",
    story=(
        "Up to Linux 6.0 the old acknowledgement makes the bytes INVALID, and a reset that is as old harms "
        "nobody. From 6.1 on conntrack ignores the segment, and the client drops it for its acknowledgement, "
        "which is too old for its own stack as well (RFC 5961, 5.2). Either way the bytes come again from the "
        "server itself."
    ),
    steps=Injection(
        lambda scenario: scenario.from_server(0, scenario.next_bytes(100), acknowledge=-70_000), answer="ACK"
    ),
)

CASES: Final = (CASE, _TWIN)
