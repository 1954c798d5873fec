"""The entry is gone where conntrack picks nothing up: the fix turns a reset into a hang."""

from __future__ import annotations

from typing import Final

from lab.cases.case import RESET, Case, on_every_kernel, row
from lab.conntrack.witness import Judgement
from lab.result import Expectation
from lab.stage import Stage
from lab.verdict import Outcome


async def _play(stage: Stage) -> None:
    await stage.establish()
    stage.set_node_sysctl("net/netfilter/nf_conntrack_tcp_loose", 0)
    stage.forget_entry()
    await stage.server_speaks()
    if stage.unheard:
        await stage.retransmissions(2)


CASE: Final = Case(
    name="entry-deleted-strictly",
    title="the entry is deleted, nf_conntrack_tcp_loose=0, and the server sends next",
    story=(
        "With that sysctl conntrack takes up no connection in its middle, so the server's segment is INVALID. "
        "Without the drop it leaks and the client's RST kills; with the drop the server sends it again and "
        "again, and the connection hangs until its timers end it. Being liberal is about the window of an "
        "entry, and there is none."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "Documentation/networking/nf_conntrack-sysctl.rst",
    ),
    play=_play,
    expectations=on_every_kernel(row(RESET, Expectation(Judgement.INVALID, Outcome.STALLED), RESET)),
)
