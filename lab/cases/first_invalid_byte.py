"""The first byte that every kernel calls INVALID, computed from the window as the node saw it."""

from __future__ import annotations

from typing import Final

from lab.cases.case import KILLS_UNLESS_LIBERAL, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    node = stage.window_at_node()
    # The overshoot counts from the end of the segment, and one more (tcp_in_window: end - td_maxend + 1).
    end = node.reply.limit + node.original.window
    await stage.inject(stage.from_server(end - stage.server.sent))
    await stage.go_on()


CASE: Final = Case(
    name="first-invalid-byte",
    title="a segment that ends one window and one byte beyond what the client granted",
    story=(
        "From Linux 6.1 on conntrack ignores an overshoot of up to one window, for some senders send more "
        "than they may. One byte more is INVALID on every kernel. The lab computes that byte from the packets "
        "that the node judged, and the kernel agrees to the byte."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "torvalds/linux cf97769c761a",
    ),
    play=_play,
    expectations=on_every_kernel(KILLS_UNLESS_LIBERAL),
)
