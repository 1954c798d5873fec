# SPDX-License-Identifier: MIT
"""Why nobody noticed: the application begins again."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED, DROPPED, Case, on_every_kernel, row
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import RetryingScenario
from lab.verdict import Outcome


async def _steps(scenario: RetryingScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(FAR, b"far off"))
    await scenario.go_on()
    await scenario.try_again()


CASE: Final = Case(
    name="retried",
    title="the same data beyond the window in the middle of a download, and a client that begins again",
    story=(
        "The connection dies as ever, with a fifth of the download done. But the client asks for all of it on a new"
        " connection, as many applications and their libraries do, and gets it: what is left of the bug is a fifth that"
        " was sent twice, and three round trips. That is one reason why it went unnoticed for so long, and why resets"
        " have to be counted where they happen."
    ),
    threads=("kubernetes/kubernetes#74839",),
    scenario=RetryingScenario,
    steps=_steps,
    expectations=on_every_kernel(row(Expectation(Judgement.INVALID, Outcome.RETRIED), DROPPED, ACCEPTED)),
)
