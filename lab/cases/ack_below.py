"""An acknowledgement that is too old to be true."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, LEAKS_UNLESS_LIBERAL, Case
from lab.stage import Stage
from lab.words import Behaviour


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(acknowledge=-70_000))
    await stage.go_on()


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
    play=_play,
    expectations={
        Behaviour.STRICT: LEAKS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)
