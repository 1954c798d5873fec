# SPDX-License-Identifier: MIT
"""Where the packets of a connection pass by, and which of them did not come as far as the first one of their side.

What was seen at the far end, and not nearer to its sender, came as far: a capture lacks it, or it was made on the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.capture.several import Several
from lab.evidence.follow import distance
from lab.evidence.packet import RST

if TYPE_CHECKING:
    from lab.capture.connection import Segment
    from lab.capture.explanation import Place
    from lab.capture.lane import Stream
    from lab.capture.naming import Naming

_AS_LONG: Final = 4  # times the first packet's way, by when the others have come as well


@dataclass(frozen=True)
class Missed:
    """Packets of one side that were seen, and not at points nearer to their sender; RSTs are told with findings."""

    from_client: bool
    lacking: frozenset[Stream]
    packets: Several

    def words(self, named: Naming) -> str:
        """Return it in words."""
        who = "client" if self.from_client else "server"
        where = ", ".join(sorted(named.points({(file, point) for file, point, _way in self.lacking})))
        count = self.packets.count
        return (
            f"{count:,} packet{'' if count == 1 else 's'} of the {who} captured further on than {where}, and not there:"
            f" {self.packets.numbers(named)}: the capture there lacks {'it' if count == 1 else 'them'}"
        )


class Ways:
    """The points that the first packet of each side came to are those that the others have to come to.

    But for those where no other one came, though what it carried was acknowledged without being sent again: a bridge
    shows a first packet at more of its interfaces than it needs (as it does not know its neighbour yet), and a capture
    may lack packets.

    :ivar first: the first packet of each side that opens the connection.
    """

    def __init__(self) -> None:
        self.first: dict[bool, Segment] = {}
        self._used: dict[bool, set[Stream]] = {True: set(), False: set()}
        self._aside: dict[bool, set[Stream]] = {True: set(), False: set()}
        self._lost: dict[tuple[bool, frozenset[Stream]], Several] = defaultdict(Several)
        self._missed: dict[tuple[bool, frozenset[Stream]], Several] = defaultdict(Several)

    def is_missing(self, segment: Segment) -> bool:
        """Check whether a packet did not come to all points of the first one of its side, which came through."""
        first = self.first.get(segment.from_client)
        if first is None or segment.at_end or _is_at_end_of_way(first, segment):
            return False
        return not self._lacks(first, segment) <= self._aside[segment.from_client]

    @staticmethod
    def _lacks(first: Segment, segment: Segment) -> set[Stream]:
        return first.streams - segment.streams

    def cut(self, recent: Sequence[Segment], last: int, *, least: int) -> None:
        """Take it that of the last packets not all copies are there, as the capture ended before those can have come.

        A side's first packet is the measure of the others, so that nothing tells that it itself has come all the way.

        :param last: when the capture ended; ``least``: how long a packet is on its way at the least; nanoseconds.
        """
        ways = (abs(one.places[-1].time - one.places[0].time) for one in self.first.values())
        on_way = max(least, _AS_LONG * max(ways, default=0))
        came = {one.from_client: number for number, one in enumerate(recent) if not self.is_missing(one)}
        for number, segment in enumerate(recent):
            is_open = number > came.get(segment.from_client, -1) or segment is self.first.get(segment.from_client)
            segment.at_end = segment.place.time > last - on_way and is_open

    @property
    def never_back(self) -> bool:
        """Whether the answer to the SYN never came to the point that has the SYN first, the one next to the client."""
        asked, answer = self.first.get(True), self.first.get(False)
        if asked is None or answer is None or answer.at_end:
            return False
        return all((one.file, one.point) != (asked.place.file, asked.place.point) for one in answer.places)

    def strayed(self, segment: Segment) -> Place | None:
        """Return where a packet was seen instead of where it was to come to; None where it was nowhere else."""
        first = self.first.get(segment.from_client)
        if first is None or not self.is_missing(segment):
            return None
        ways = {(file, point) for file, point, _way in first.streams}
        return next((place for place in segment.places if (place.file, place.point) not in ways), None)

    def take(self, segment: Segment, acknowledged: int | None, *, is_plain: bool) -> None:
        """Take it that no more copies of a packet come.

        :param acknowledged: the number up to which its side's bytes are, by now; None where nobody told.
        :param is_plain: nothing is told of it otherwise, which would say where it went.
        """
        side = segment.from_client
        first = self.first.get(side)
        if first is None or first is segment:
            return
        used = self._used[side]
        used.update(segment.streams)
        if len(segment.forms) >= len(first.forms) or segment.at_end:
            return
        lacking = self._lacks(first, segment)
        if _came(segment, acknowledged):
            self._aside[side] |= lacking - used
        elif is_plain and not lacking <= self._aside[side] and _is_at_end_of_way(first, segment):
            assert segment.packet.tcp is not None
            if not segment.packet.tcp.flags & RST:  # of which findings say that it may be made on the way
                self._missed[side, frozenset(lacking)].add(segment.place, segment.packet.end)
        elif is_plain and not lacking <= self._aside[side]:
            self._lost[side, frozenset(lacking)].add(segment.place, segment.packet.end)

    def lost(self) -> dict[bool, Several]:
        """Return the packets of each side that did not come as far, by all that is known now."""
        found: dict[bool, Several] = {}
        for (side, lacking), several in self._lost.items():
            if not lacking <= self._aside[side]:
                found.setdefault(side, Several()).join(several)
        return found

    def missed(self) -> Iterator[Missed]:
        """Yield the packets that were seen, and not nearer to their sender, by all that is known now."""
        for (side, lacking), several in self._missed.items():
            if not lacking <= self._aside[side]:
                yield Missed(side, lacking - self._aside[side], several)


def _is_at_end_of_way(first: Segment, segment: Segment) -> bool:
    """Check whether a packet was seen where the first one of its side was seen last."""
    return first.forms[-1][0] in segment.streams


def _came(segment: Segment, acknowledged: int | None) -> bool:
    """Check whether a packet came to its receiver: what it carried was acknowledged, and never sent again."""
    if acknowledged is None or segment.again or not segment.packet.payload_length:
        return False
    return distance(segment.packet.end, acknowledged) >= 0
