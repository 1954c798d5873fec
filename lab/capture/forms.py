# SPDX-License-Identifier: MIT
"""By which points a connection's packets pass, before their translation and behind it."""

from __future__ import annotations

from lab.capture.explanation import Point
from lab.capture.lane import Stream


class Forms:
    """Where packets of each side, the client's by ``True``, were seen in which form.

    :ivar before: in the form that their sender gave them; ``behind``: translated.
    :ivar unplaced: where they were seen while no translation was known.
    :ivar mixed: where packets are in both forms.
    """

    def __init__(self) -> None:
        self.before: dict[bool, set[Stream]] = {True: set(), False: set()}
        self.behind: dict[bool, set[Stream]] = {True: set(), False: set()}
        self.unplaced: dict[bool, set[Stream]] = {True: set(), False: set()}
        self.mixed: set[Stream] = set()

    def place_all(self, *, by_client: bool = True) -> None:
        """Take it that all packets so far were seen as the client knows them, or else as the endpoint does."""
        for side, streams in self.unplaced.items():
            (self.before if side is by_client else self.behind)[side].update(streams)
            streams.clear()

    @property
    def is_of_several(self) -> bool:
        """Whether packets of a side are seen by several ways, as far as no translation is known."""
        return any(len(streams) > 1 for streams in self.unplaced.values())

    def seen_at(self, *, from_client: bool) -> set[Point]:
        """Return the points at which packets of a side are seen, in whatever form."""
        found = (one[from_client] for one in (self.behind, self.before, self.unplaced))
        return {stream[:2] for streams in found for stream in streams}

    @property
    def client_s_side(self) -> set[Point]:
        """The points at which packets of the client are seen as it knows them, and in no other form."""
        before, behind = ({one[:2] for one in streams[True]} for streams in (self.before, self.behind))
        return before - behind
