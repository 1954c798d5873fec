"""The last byte beyond the window that newer kernels let through."""

from __future__ import annotations

from typing import Final

from lab.cases.case import ACCEPTED, IGNORED, KILLS_UNLESS_LIBERAL, Case, row
from lab.conntrack.witness import Judgement
from lab.result import Expectation
from lab.stage import Stage
from lab.verdict import Outcome
from lab.words import Behaviour


async def _play(stage: Stage) -> None:
    await stage.establish()
    node = stage.window_at_node()
    end = node.reply.limit + node.original.window - 1
    await stage.inject(stage.from_server(end - stage.server.sent))
    await stage.go_on()


#: Ignored now, and the connection killed by what comes of it.
_DELAYED: Final = row(Expectation(Judgement.IGNORED, Outcome.RESET), IGNORED, ACCEPTED)

CASE: Final = Case(
    name="last-ignored-byte",
    title="a segment that ends one byte before the first INVALID one",
    story=(
        "Up to Linux 6.0 every byte beyond what the client granted is INVALID, and this segment kills at "
        "once. From 6.1 on it is let through and translated, but conntrack takes its end for what the server "
        "has sent, finds the client's answers too old from then on, and no longer learns what the client "
        "sends. So the server's next acknowledgement is INVALID, leaks and kills, with no bad packet in "
        "sight; the drop keeps the connection alive, but for good without those acknowledgements."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c",
        "torvalds/linux 6e250dcbff1d",
    ),
    play=_play,
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: _DELAYED,
    },
)
