"""The last byte beyond the window that newer kernels let through."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, KILLS_UNLESS_LIBERAL, Case
from lab.stage import Stage
from lab.words import Behaviour


async def _play(stage: Stage) -> None:
    await stage.establish()
    node = stage.window_at_node()
    end = node.reply.limit + node.original.window - 1
    await stage.inject(stage.from_server(end - stage.server.sent))
    await stage.go_on()


CASE: Final = Case(
    name="last-ignored-byte",
    title="a segment that ends one byte before the first INVALID one",
    story=(
        "Up to Linux 6.0 every byte beyond what the client granted is INVALID, and this segment kills. From "
        "6.1 on it is ignored: let through, translated, and logged with a reason all the same. Who reads the "
        "log alone takes it for INVALID."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "torvalds/linux 6e250dcbff1d",
    ),
    play=_play,
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)
