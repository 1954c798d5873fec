"""The acknowledgement is perfect, and a SACK block is not."""

from __future__ import annotations

from typing import Final

from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    edge = stage.client.sent + 1000
    await stage.inject(stage.from_server(options=[("SAck", (edge - 500, edge))], timestamps=None))
    await stage.go_on()


CASE: Final = Case(
    name="sack-beyond",
    title="the next segment with a perfect acknowledgement, and a SACK block beyond what the client sent",
    story=(
        "Conntrack takes the right edge of a SACK block for an acknowledgement, and this one is of bytes that "
        "it has not seen. So the segment is INVALID on every kernel, in the window and with exact numbers. "
        "The client's RST copies the acknowledgement, which is perfect, and kills."
    ),
    threads=(
        "RFC 2018",
        "net/netfilter/nf_conntrack_proto_tcp.c",
    ),
    play=_play,
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)
