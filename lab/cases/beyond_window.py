# SPDX-License-Identifier: MIT
"""The bug of the report: one segment far beyond the window, and the connection is dead."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, Injection, on_every_kernel
from lab.scenario import ConnectionScenario

#: Beyond every window that scaling allows to ask for twice (RFC 7323, 2.3: 2^30), and below 2^31, where "before" and
#: "after" change places. From Linux 6.1 on an overshoot of less than a window would only be ignored.
FAR: Final = 2**29

CASE: Final = Case(
    name="beyond-window",
    title="data far beyond the client's window, acknowledging exactly what the server received",
    story=(
        "Conntrack cannot place the segment and calls it INVALID, so the node does not translate it back and "
        "the client sees it come from the pod's own address. The client has no connection with that address "
        "and answers it with a RST. The RST's number is the one that the server waits for, so the server's "
        "kernel ends a healthy connection."
    ),
    threads=(
        "kubernetes/kubernetes#74839",
        "projectcalico/calico#3821",
        "kubernetes/kubernetes#122174",
    ),
    scenario=ConnectionScenario,
    steps=Injection(lambda scenario: scenario.from_server(FAR, b"far off"), answer="ACK"),
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)

_TWIN: Final = dataclasses.replace(
    CASE,
    name="beyond-window-without-data",
    title="an empty segment far beyond the client's window",
    story=(
        "Conntrack judges where a segment starts, not what it carries, so an acknowledgement without data is "
        "INVALID there as well. The client resets whoever sends from a stranger's address, with data or "
        "without. A keepalive in the wrong place kills as surely as a file."
    ),
    steps=Injection(lambda scenario: scenario.from_server(FAR), answer="ACK"),
)

CASES: Final = (CASE, _TWIN)
