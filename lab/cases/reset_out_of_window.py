"""A reset from the server that does not fit is lost."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import LEAKS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(FAR, flags="RA"))
    stage.expect_answer("", stranger="")
    await stage.go_on()


CASE: Final = Case(
    name="reset-out-of-window",
    title="a RST from the server far beyond the window",
    story=(
        "Conntrack calls it INVALID, so it leaks from the pod's address, and the client has no connection "
        "with that address to reset. A RST is never answered, so nothing comes of it. With a real server's "
        "reset this is how a client never learns that the server is gone."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "RFC 9293, 3.10.7.1",
    ),
    play=_play,
    expectations=on_every_kernel(LEAKS_UNLESS_LIBERAL),
)
