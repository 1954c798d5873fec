"""The same place beyond the window, and nothing in the segment."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(FAR))
    await stage.go_on()


CASE: Final = Case(
    name="beyond-window-without-data",
    title="an empty segment far beyond the client's window",
    story=(
        "Conntrack judges where a segment starts, not what it carries, so an acknowledgement without data is "
        "INVALID there as well. The client resets whoever sends from a stranger's address, with data or "
        "without. A keepalive in the wrong place kills as surely as a file."
    ),
    threads=(
        "kubernetes/kubernetes#74839",
        "net/netfilter/nf_conntrack_proto_tcp.c",
    ),
    play=_play,
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)
