# SPDX-License-Identifier: MIT
"""How packets and points are called in sentences: by their files too, where packets came from more than one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePath

from lab.capture.explanation import Place, Point


class Naming:
    """Calls packets by their numbers, and where there are several files, by their files' names as well.

    :param files: those that have packets. Of a path the last part is enough, where no other file has the same.
    :param printed: those of them that are text, whose packets are called by their lines: that is where one looks.
    """

    def __init__(self, files: Iterable[str], printed: Collection[str] = ()) -> None:
        given = list(dict.fromkeys(files))
        short = {file: PurePath(file).name or file for file in given}
        count = Counter(short.values())
        called = {file: name if count[name] == 1 else file for file, name in short.items()}
        self._files = called if len(given) > 1 else {}
        self._printed = frozenset(printed)

    def __call__(self, place: Place) -> str:
        """Return what follows a word for a packet, such as ``7``, ``7 of client.pcap`` or ``in line 7``."""
        return f"{'in ' * self._is_line(place)}{self.first(place)}"

    def first(self, place: Place) -> str:
        """Return what a packet is called where nothing stands before it: ``7``, or ``line 7 of dump.txt``."""
        return f"{'line ' * self._is_line(place)}{place.number}{self._of(place.file)}"

    def packet(self, place: Place) -> str:
        """Return what one packet is called: ``packet 7 of client.pcap``, or ``the packet in line 7``."""
        return f"{'the ' * self._is_line(place)}packet {self(place)}"

    def in_full(self, place: Place) -> str:
        """Return the same with its file, however many there are."""
        words = f"{place.number} of {place.file}"
        return f"the packet in line {words}" if self._is_line(place) else f"packet {words}"

    def where(self, place: Place) -> str:
        """Return what one packet is called, and at which interface it was seen: ``packet 7 of client.pcap (eth0)``."""
        return f"{self.packet(place)}{f' ({place.point})' if place.point else ''}"

    def all(self, places: Sequence[Place], *, more: bool = False) -> str:
        """Return what packets are called, those of one file together: ``6, 7 of client.pcap, lines 3, 4 of dump.txt``.

        :param more: there are others of their kind.
        """
        numbers: dict[str, list[Place]] = {}
        for place in places:
            numbers.setdefault(place.file if self._files else "", []).append(place)
        words = ", ".join(self._together(own) for own in numbers.values())
        return f"{words}, and more" if more else words

    def _together(self, places: Sequence[Place]) -> str:
        lines = ("line " if len(places) == 1 else "lines ") if self._is_line(places[0]) else ""
        return f"{lines}{', '.join(str(place.number) for place in places)}{self._of(places[0].file)}"

    def point(self, point: Point) -> str:
        """Return what a point is called: its interface, of which file, as far as either is told; else empty."""
        file, interface = point
        return f"{interface}{self._of(file)}" if interface else self._files.get(file, "")

    def points(self, points: Iterable[Point]) -> tuple[str, ...]:
        """Return what points are called, those that are told."""
        return tuple(words for point in points if (words := self.point(point)))

    def _is_line(self, place: Place) -> bool:
        return place.file in self._printed

    def _of(self, file: str) -> str:
        return f" of {self._files[file]}" if file in self._files else ""
