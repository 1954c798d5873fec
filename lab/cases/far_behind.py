# SPDX-License-Identifier: MIT
"""As far behind as a segment can be while it is still behind."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import IGNORED_UNLESS_LIBERAL, KILLS_UNLESS_LIBERAL, Case, Injection
from lab.scenario import ConnectionScenario
from lab.vocabulary import Behaviour

CASE: Final = Case(
    name="far-behind",
    title="data half a gigabyte behind",
    story=(
        "Sequence numbers go round, so at most 2^31 of them are behind: this segment is a quarter of the "
        "circle late. Up to Linux 6.0 it is INVALID and kills. From 6.1 on it is late like any other, and "
        "ignored."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c",),
    scenario=ConnectionScenario,
    steps=Injection(lambda scenario: scenario.from_server(-FAR, b"too late"), answer="ACK"),
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="far-behind-without-data",
    title="an empty segment half a gigabyte behind",
    story=(
        "Where a segment ends decides whether it is late, and this one ends where it starts. Up to Linux 6.0 it is "
        "INVALID and kills like one with data. From 6.1 on it is ignored, and the client's answer to it is a "
        "duplicate acknowledgement."
    ),
    steps=Injection(lambda scenario: scenario.from_server(-FAR), answer="ACK"),
)

CASES: Final = (CASE, _TWIN)
