"""The entry is gone, and the server speaks first: no fix helps."""

from __future__ import annotations

from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.conntrack.witness import Judgement
from lab.stage import Stage
from lab.verdict import Outcome


async def _play(stage: Stage) -> None:
    await stage.establish()
    stage.forget_entry()
    await stage.server_speaks()
    await stage.go_on()


CASE: Final = Case(
    name="entry-deleted",
    title="the connection's entry is deleted, and the server sends next",
    story=(
        "Without its entry the server's segment is the first of a connection that conntrack does not know, "
        "and by nf_conntrack_tcp_loose=1 it is taken for one that began earlier: NEW, not INVALID. It leaves "
        "without translation, and the client's RST kills. Nothing was INVALID, so neither the drop nor being "
        "liberal has anything to do."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "Documentation/networking/nf_conntrack-sysctl.rst",
    ),
    play=_play,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
)
