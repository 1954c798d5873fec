"""Invalid, and yet nobody dies: the reset is not exact."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(acknowledge=1))
    await stage.go_on()


CASE: Final = Case(
    name="ack-above",
    title="the next segment, but it acknowledges one byte that the client never sent",
    story=(
        "Conntrack has not seen that byte from the client, so the segment is INVALID on every kernel and "
        "leaks. The client's RST copies the wrong number, and the server's kernel takes only the exact one: "
        "it answers with a challenge acknowledgement and lives. INVALID and reset are two things, and have to "
        "be shown apart."
    ),
    threads=(
        "RFC 5961, 3.2",
        "net/netfilter/nf_conntrack_proto_tcp.c",
    ),
    play=_play,
    expectations=on_every_kernel(LEAKS_UNLESS_LIBERAL),
)
