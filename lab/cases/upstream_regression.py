"""The packet of Kubernetes' own regression test, which newer kernels no longer call INVALID."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, KILLS_UNLESS_LIBERAL, Case
from lab.stage import Stage
from lab.words import Behaviour

#: test/images/regression-issue-74839 of kubernetes: seq = the client's acknowledgement - 100000, 7 bytes.
_BEHIND: Final = -100_000


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(_BEHIND, b"boom!!!"))
    await stage.go_on()


CASE: Final = Case(
    name="upstream-regression",
    title="the packet of Kubernetes' own regression test: 100,000 bytes behind",
    story=(
        "Up to Linux 6.0 a segment that far behind is INVALID and resets the connection like any other. From "
        "6.1 on conntrack ignores late segments: it lets them through and translates them, and the client "
        "answers with an acknowledgement. The regression test waits for a reset that no such kernel sends, so "
        "it passes with and without the fix."
    ),
    threads=(
        "kubernetes/kubernetes#74839",
        "torvalds/linux 6e250dcbff1d",
    ),
    play=_play,
    expectations={
        Behaviour.STRICT: KILLS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
)
