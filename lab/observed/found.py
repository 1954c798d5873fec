# SPDX-License-Identifier: MIT
"""What is found wrong: a packet that leaked, and a RST that answers one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from lab.capture.judging import Word
from lab.evidence.packet import SocketAddress
from lab.evidence.sighting import Sighting

#: In place of an entry's state: there is none any more.
GONE: Final = "gone"


@dataclass(frozen=True)
class Leak:
    """A packet that left untranslated.

    :param target: whom the client asked; ``endpoint``: who that is.
    :param state: of its connection's entry when conntrack was asked: TCP's, or :data:`GONE`.
    :param word: what conntrack says of such a packet; None where not all packets of its connection were seen.
    :param over: its connection was over already, so that it does no harm.
    :param first: of its connection's.
    """

    sighting: Sighting
    client: SocketAddress
    target: SocketAddress
    endpoint: SocketAddress
    state: str
    word: Word | None
    over: bool
    first: bool


@dataclass(frozen=True)
class Reset:
    """A RST to an endpoint that is not its connection's own.

    :param leak: what it answers; None where that was not seen.
    :param by_node: the node itself sent it, as it took an untranslated packet for its own.
    :param state: as of :class:`Leak`.
    :param over: likewise.
    :param first: the first finding of its connection.
    """

    sighting: Sighting
    client: SocketAddress
    target: SocketAddress
    endpoint: SocketAddress
    state: str
    leak: Leak | None
    by_node: bool
    over: bool
    first: bool


Finding: TypeAlias = Leak | Reset
