"""What a case is: one way in which a connection breaks, its story, and what a kernel should do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from lab.conntrack.witness import Judgement
from lab.result import Expectation
from lab.stage import Stage
from lab.verdict import Outcome
from lab.words import Behaviour


class Protection(StrEnum):
    """What stands between an INVALID packet and the client, whoever put it there: a fix, or kube-proxy's version."""

    NOTHING = "nothing"
    DROP = "drop"
    LIBERAL = "liberal"


#: By kernel behaviour, then by protection.
Expectations = Mapping[Behaviour, Mapping[Protection, Expectation]]


@dataclass(frozen=True)
class Case:
    """One way in which a connection breaks, or a control that shows why it does not.

    :param title: what is done, in a line.
    :param story: what happens and why, in three sentences.
    :param threads: where people met it.
    :param play: does it, on a stage.
    :param expectations: what should come of it. Written down beforehand, not learned from trials.
    """

    name: str
    title: str
    story: str
    threads: tuple[str, ...]
    play: Callable[[Stage], Awaitable[None]]
    expectations: Expectations


INVALID_UNLESS_LIBERAL: Mapping[Protection, Expectation] = {
    Protection.NOTHING: Expectation(Judgement.INVALID, Outcome.RESET),
    Protection.DROP: Expectation(Judgement.INVALID, Outcome.DROPPED),
    Protection.LIBERAL: Expectation(Judgement.ACCEPTED, Outcome.DELIVERED),
}
"""A packet out of the window with the exact acknowledgement, behind address translation."""


def always(judgement: Judgement, outcome: Outcome) -> Mapping[Protection, Expectation]:
    """Expect the same under every protection."""
    return dict.fromkeys(Protection, Expectation(judgement, outcome))
