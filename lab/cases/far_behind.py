"""As far behind as a segment can be while it is still behind."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import IGNORED_UNLESS_LIBERAL, KILLS_UNLESS_LIBERAL, Case
from lab.stage import Stage
from lab.words import Behaviour


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(-FAR, b"too late"))
    await stage.go_on()


CASE: Final = Case(
    name="far-behind",
    title="data half a gigabyte behind",
    story=(
        "Sequence numbers go round, so at most 2^31 of them are behind: this segment is a quarter of the "
        "circle late. Up to Linux 6.0 it is INVALID and kills. From 6.1 on it is late like any other, and "
        "ignored."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c",),
    play=_play,
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)
