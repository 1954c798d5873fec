# SPDX-License-Identifier: MIT
"""How packets and points are called in sentences: by their files too, where packets came from more than one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from lab.capture.explanation import Place, Point


class Naming:
    """Calls packets by their numbers, and where there are several files, by their files' names as well.

    :param files: those that have packets. Of a path the last part is enough, where no other file has the same.
    """

    def __init__(self, files: Iterable[str]) -> None:
        given = list(dict.fromkeys(files))
        short = {file: PurePath(file).name or file for file in given}
        count = Counter(short.values())
        self._files = {file: name if count[name] == 1 else file for file, name in short.items()}
        if len(given) < 2:
            self._files.clear()

    def __call__(self, place: Place) -> str:
        """Return what one packet is called, such as ``7`` or ``7 of client.pcap``."""
        return f"{place.number}{self._of(place.file)}"

    def where(self, place: Place) -> str:
        """Return what one packet is called, and at which interface it was seen: ``7 of client.pcap (eth0)``."""
        return f"{self(place)}{f' ({place.point})' if place.point else ''}"

    def all(self, places: Sequence[Place], *, more: bool = False) -> str:
        """Return what packets are called, those of one file together: ``6, 7 of client.pcap, 3 of server.pcap``.

        :param more: there are others of their kind.
        """
        numbers: dict[str, list[str]] = {}
        for place in places:
            numbers.setdefault(place.file if self._files else "", []).append(str(place.number))
        words = ", ".join(f"{', '.join(own)}{self._of(file)}" for file, own in numbers.items())
        return f"{words}, and more" if more else words

    def point(self, point: Point) -> str:
        """Return what a point is called: its interface, of which file, as far as either is told; else empty."""
        file, interface = point
        return f"{interface}{self._of(file)}" if interface else self._files.get(file, "")

    def points(self, points: Iterable[Point]) -> tuple[str, ...]:
        """Return what points are called, those that are told."""
        return tuple(words for point in points if (words := self.point(point)))

    def _of(self, file: str) -> str:
        return f" of {self._files[file]}" if file in self._files else ""
