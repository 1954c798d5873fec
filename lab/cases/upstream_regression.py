# SPDX-License-Identifier: MIT
"""The packet of Kubernetes' own regression test, which newer kernels no longer call INVALID."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, KILLS_UNLESS_LIBERAL, Case, Injection
from lab.scenario import ConnectionScenario
from lab.vocabulary import Behaviour

#: test/images/regression-issue-74839 of kubernetes: seq = the client's acknowledgement - 100000, 7 bytes.
_BEHIND: Final = -100_000

CASE: Final = Case(
    name="upstream-regression",
    title="the packet of Kubernetes' own regression test: 100,000 bytes behind",
    story=(
        "Up to Linux 6.0 a segment that far behind is INVALID and resets the connection like any other. From "
        "6.1 on conntrack ignores late segments: it lets them through and translates them, and the client "
        "answers with an acknowledgement. The regression test waits for a reset that no such kernel sends, so "
        "it passes with and without the fix."
    ),
    threads=(
        "kubernetes/kubernetes#74839",
        "torvalds/linux 6e250dcbff1d",
    ),
    scenario=ConnectionScenario,
    steps=Injection(lambda scenario: scenario.from_server(_BEHIND, b"boom!!!"), answer="ACK"),
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="upstream-regression-without-data",
    title="the number of Kubernetes' regression test, and nothing in the segment",
    story=(
        "The seven bytes of the regression test's packet are not what makes it INVALID up to Linux 6.0: its "
        "number does, so an empty segment kills as well. From 6.1 on it is late and ignored, with the bytes or "
        "without. What the test would have to send today is a number beyond the window, as beyond-window does."
    ),
    steps=Injection(lambda scenario: scenario.from_server(_BEHIND), answer="ACK"),
)

CASES: Final = (CASE, _TWIN)
