# SPDX-License-Identifier: MIT
"""The control without address translation: the report's virtual machines without Kubernetes."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED, DROPPED, Case, on_every_kernel, row
from lab.evidence.judgement import Judgement
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish(by_service=False)
    await scenario.inject(scenario.from_server(FAR, b"far off"))
    scenario.expect_answer("ACK")
    await scenario.go_on()


#: INVALID, but from the address that the client talks to.
_UNTRANSLATED: Final = Expectation(Judgement.INVALID, Outcome.DELIVERED)

#: Nothing judges it, and nothing has to be translated.
_UNTRACKED: Final = Expectation(Judgement.UNTRACKED, Outcome.DELIVERED)

CASE: Final = Case(
    name="without-nat",
    about_answers=False,
    title="control: the same data beyond the window, but the client talks to the pod's address",
    story=(
        "Conntrack calls the segment INVALID here as well. But there is nothing to translate back: the client sees it"
        " come from the address that it talks to, finds it out of its window and answers with an acknowledgement."
        " The bug needs both, an INVALID packet and address translation, so machines without Kubernetes never had it."
    ),
    threads=("kubernetes/kubernetes#74839",),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(row(_UNTRANSLATED, DROPPED, ACCEPTED, untracked=_UNTRACKED)),
)
