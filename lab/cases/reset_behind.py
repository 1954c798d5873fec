"""A reset below what the client has acknowledged."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(-1, flags="R"))
    await stage.go_on()


CASE: Final = Case(
    name="reset-behind",
    title="a RST from the server one number behind",
    story=(
        "Since it may have been forged by someone who saw an old segment, conntrack calls a RST below the "
        "client's acknowledgement INVALID, whatever the window says and however liberal it is. It leaks and "
        "is never answered. The connection lives."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, the state CLOSE",
        "torvalds/linux be0502a3f2e9",
    ),
    play=_play,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
)
