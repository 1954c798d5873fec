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
    BOTH = "liberal and drop"


#: What should become of a trial, by protection.
Row = Mapping[Protection, Expectation]

#: By kernel behaviour, then by protection.
Expectations = Mapping[Behaviour, Row]


@dataclass(frozen=True)
class Case:
    """One way in which a connection breaks, or a control that shows why it does not.

    :param title: what is done, in a line.
    :param story: what happens and why, in three sentences.
    :param threads: where people met it, or where the kernel's rule comes from.
    :param play: does it, on a stage.
    :param expectations: what should come of it. Written down beforehand, not learned from trials.
    """

    name: str
    title: str
    story: str
    threads: tuple[str, ...]
    play: Callable[[Stage], Awaitable[None]]
    expectations: Expectations


def row(nothing: Expectation, drop: Expectation, liberal: Expectation) -> Row:
    """Return what is expected under each protection.

    Under both at once the drop has work only where being liberal leaves the packet INVALID.
    """
    return {
        Protection.NOTHING: nothing,
        Protection.DROP: drop,
        Protection.LIBERAL: liberal,
        Protection.BOTH: drop if liberal.judgement is Judgement.INVALID else liberal,
    }


def always(judgement: Judgement, outcome: Outcome) -> Row:
    """Expect the same under every protection."""
    return dict.fromkeys(Protection, Expectation(judgement, outcome))


def on_every_kernel(expected: Row) -> Expectations:
    """Expect the same of every kernel."""
    return dict.fromkeys(Behaviour, expected)


ACCEPTED = Expectation(Judgement.ACCEPTED, Outcome.DELIVERED)
IGNORED = Expectation(Judgement.IGNORED, Outcome.DELIVERED)
DROPPED = Expectation(Judgement.INVALID, Outcome.DROPPED)
RESET = Expectation(Judgement.INVALID, Outcome.RESET)
LEAKED = Expectation(Judgement.INVALID, Outcome.LEAKED)

#: Out of the window with the exact acknowledgement: the client's reset kills.
KILLS_UNLESS_LIBERAL = row(RESET, DROPPED, ACCEPTED)
#: Out of the window, but no exact reset comes of it.
LEAKS_UNLESS_LIBERAL = row(LEAKED, DROPPED, ACCEPTED)
#: Not a window matter, so being liberal changes nothing; no exact reset comes of it.
LEAKS_UNLESS_DROPPED = row(LEAKED, DROPPED, LEAKED)
#: Not a window matter, and the client's reset kills.
KILLS_UNLESS_DROPPED = row(RESET, DROPPED, RESET)
#: What kernels that ignore late packets make of one: it is let through and translated, whatever the protection.
IGNORED_UNLESS_LIBERAL = row(IGNORED, IGNORED, ACCEPTED)
#: Nothing is wrong with it, or nothing that conntrack looks at.
ACCEPTED_ALWAYS = always(Judgement.ACCEPTED, Outcome.DELIVERED)
#: Ignored by the table of states, not by the window: being liberal changes nothing.
IGNORED_ALWAYS = always(Judgement.IGNORED, Outcome.DELIVERED)
