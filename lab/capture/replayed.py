# SPDX-License-Identifier: MIT
"""What came of a captured connection that was sent again: conntrack's word on its segments, beside the model's."""

from __future__ import annotations

from dataclasses import dataclass

from lab.capture.explanation import Place
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.vocabulary import Behaviour


@dataclass(frozen=True)
class Said:
    """What was said of one segment.

    :param what: its flags, whose it is, and its length.
    :param judgement: conntrack's; ``reason`` is its own word, empty where it gave none.
    :param expected: the model's; None where it belongs to no entry, as a RST to a stranger.
    """

    place: Place
    what: str
    judgement: Judgement
    reason: str
    expected: Judgement | None

    @property
    def differs(self) -> bool:
        """Whether conntrack and the model disagree."""
        return self.expected is not None and self.expected is not plain(self.judgement)


@dataclass(frozen=True)
class Replayed:
    """One connection that was sent again.

    :param kernel: the release of the kernel that judged; ``behaviour``: how it judges, as it was asked.
    :param sent: how many segments.
    :param said: of those that were not simply accepted, by conntrack or by the model, or that something was found of.
    :param untold: why not; empty where it was.
    :param is_cut: whether it has more segments than were sent.
    """

    client: SocketAddress
    target: SocketAddress
    kernel: str
    behaviour: Behaviour
    sent: int
    said: tuple[Said, ...]
    untold: str = ""
    is_cut: bool = False

    @property
    def differs(self) -> bool:
        """Whether conntrack and the model disagree on any segment."""
        return any(one.differs for one in self.said)


def plain(judgement: Judgement) -> Judgement:
    """Return what the model, which knows no first packets, calls a judgement."""
    return Judgement.ACCEPTED if judgement is Judgement.NEW else judgement
