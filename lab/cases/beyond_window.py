"""The bug of the report: one segment far beyond the window, and the connection is dead."""

from __future__ import annotations

from typing import Final

from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.stage import Stage

#: Beyond every window that scaling allows to ask for twice (RFC 7323, 2.3: 2^30), and below 2^31, where "before" and
#: "after" change places. From Linux 6.1 on an overshoot of less than a window would only be ignored.
FAR: Final = 2**29


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(FAR, b"far off"))
    await stage.go_on()


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
    play=_play,
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)
