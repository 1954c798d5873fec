# SPDX-License-Identifier: MIT
"""Telling connections as soon as nothing more comes of them, so that what is kept of each is small, and is bounded.

Of each kind of finding so many connections are told one by one; those that have nothing else are only counted then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from typing import Final

from lab.capture.connection import Connection
from lab.capture.explanation import Counted, Explained
from lab.capture.findings import explained
from lab.capture.naming import Naming
from lab.capture.ordinary import Ordinary
from lab.vocabulary import Behaviour

_MOST: Final = 10_000  # findings of one kind that are told one by one
_SHOWN: Final = 5  # connections with gaps, and gaps of each


class Abridged:
    """What is told of connections: one by one, and of those that are too many how many there are."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, Explained]]] = defaultdict(list)
        self._told: Counter[tuple[str, str]] = Counter()
        self._connections: Counter[str] = Counter()
        self._findings: dict[str, Counter[str]] = defaultdict(Counter)

    def is_full(self, protocol: str, kind: str) -> bool:
        """Check whether findings of a kind are only counted."""
        return self._told[protocol, kind] >= _MOST

    def add(self, order: int, one: Explained) -> None:
        """Take what there is to tell of a connection.

        :param order: its number among those of its protocol, by which they are told.
        """
        kinds = Counter(finding.kind for finding in one.findings)
        if kinds and all(self.is_full(one.protocol, kind) for kind in kinds):
            self.count(one.protocol, kinds)
            return
        for kind, count in kinds.items():
            self._told[one.protocol, kind] += count
        self._kept[one.protocol].append((order, one))

    def count(self, protocol: str, kinds: Counter[str]) -> None:
        """Count a connection, and what was found of it."""
        self._connections[protocol] += 1
        self._findings[protocol].update(kinds)

    @property
    def kept(self) -> Iterator[Explained]:
        """Those that are told one by one, each protocol's in their order."""
        for own in self._kept.values():
            yield from (one for _order, one in sorted(own, key=lambda each: each[0]))

    @property
    def counted(self) -> Iterator[Counted]:
        """The others."""
        for protocol, count in self._connections.items():
            yield Counted(protocol, count, dict(self._findings[protocol].most_common()), _MOST)


class Telling:
    """Tells TCP's connections, when they are given up and at the end.

    :param guessed: the packets, by file and number, whose sequence number and checksum nobody printed.
    """

    def __init__(
        self, abridged: Abridged, behaviour: Behaviour, named: Naming, guessed: Container[tuple[str, int]]
    ) -> None:
        self._abridged = abridged
        self._behaviour = behaviour
        self._named = named
        self._guessed = guessed
        self._unscaled = False
        self._gaps: list[str] = []
        self._with_gaps = 0
        self._missed: list[str] = []
        self._more_missed = 0

    def give_up(self, one: Connection | Ordinary) -> None:
        """Tell a connection of which the rest will not be told: of one with nothing wrong there is nothing to tell."""
        if isinstance(one, Ordinary):
            self._unscaled = self._unscaled or one.unscaled
            return
        told = self._told(one, None)
        if told.findings:
            self._abridged.add(one.order, told)

    def end(self, one: Connection | Ordinary, last: int | None) -> None:
        """Tell a connection at the end.

        :param last: when the capture ended.
        """
        if isinstance(one, Ordinary):
            self._unscaled = self._unscaled or one.unscaled
        self._abridged.add(one.order, one.explained() if isinstance(one, Ordinary) else self._told(one, last))

    def count_unanswered(self, one: Ordinary) -> bool:
        """Count a SYN that nobody answered, and return True, where such ones are told no more."""
        if not self._abridged.is_full("TCP", "unanswered"):
            return False
        self._unscaled = self._unscaled or one.unscaled
        self._abridged.count("TCP", Counter(["unanswered"]))
        return True

    def _told(self, one: Connection, last: int | None) -> Explained:
        told = explained(one, self._behaviour, self._named, self._guessed, last)
        self._unscaled = self._unscaled or one.conntrack.unscaled
        if one.gaps.found:
            self._with_gaps += 1
            if len(self._gaps) < _SHOWN:
                self._gaps.append(_gaps(one, self._named))
        for missed in one.ways.missed():
            if len(self._missed) < _SHOWN:
                self._missed.append(f"{one.client} > {one.target}: {missed.words(self._named)}")
            else:
                self._more_missed += missed.packets.count
        return told

    @property
    def notes(self) -> Iterator[str]:
        """What is missing of connections, in sentences."""
        if self._unscaled:
            yield (
                "the SYN's options were cut off by the snaplen (tcpdump -s 96 keeps them): how windows are scaled is"
                " not known, and they are taken to be as large as they can be"
            )
        yield from self._gaps
        if self._with_gaps > len(self._gaps):
            yield f"the capture has gaps in {self._with_gaps - len(self._gaps):,} connections more"
        yield from self._missed
        if self._more_missed:
            yield f"so did {self._more_missed:,} packets of other connections"


def _gaps(one: Connection, named: Naming) -> str:
    missing = [gap.words(named) for gap in one.gaps.found[:_SHOWN]]
    more = f", and {len(one.gaps.found) - _SHOWN:,} more" if len(one.gaps.found) > _SHOWN else ""
    return (
        f"{one.client} > {one.target}: the capture has a gap: {', '.join(missing)}{more} are not in it; what rests on"
        " them is not judged"
    )
