# SPDX-License-Identifier: MIT
"""A trial as a sequence diagram: hosts from left to right, time downwards, every packet an arrow on its link.

What comes to a node and what it sends on stands in one line, as in the report's figure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import Final

from lab.evidence.packet import Packet
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import PacketTimeline, Timeline
from lab.report import svg
from lab.report.hops import Hop, hops
from lab.verdict.packet import lost_where

#: Where packets are seen: an interface of a host.
_Place = tuple[str, str]

_TIMES: Final = 84  # pixels, at the left
_EDGE: Final = 60  # around the first host's line, and around the last one's
_INSIDE: Final = 150  # between two interfaces of one host, at least
_ENTRY: Final = 230  # for the entry's life, at the right
_HEAD: Final = 52
_ROW: Final = 50
_NOTE: Final = 15  # a line of what is found about a packet
_STUB: Final = 70  # of an arrow of which one end was not seen


def sequence(timeline: Timeline, title: str, description: str) -> str:
    """Return the diagram as SVG; empty where no packets were kept.

    :param title: what it shows, and ``description``, what came of it: for those who do not see it.
    """
    told = hops(timeline)
    return _Diagram(timeline, told).drawn(title, description) if told else ""


class _Diagram:
    def __init__(self, timeline: Timeline, told: Sequence[Hop]) -> None:
        self._timeline = timeline
        self._rows = _rows(told)
        self._places = _places(told, timeline)
        self._at = self._columns(told)
        self._right = max(self._at.values()) + _EDGE
        self._width = self._right + _ENTRY
        self._letters = int((self._right - _TIMES) / svg.LETTER)
        self._life: list[tuple[float, str]] = []  # where the entry came into which state
        lost = lost_where(timeline) if isinstance(timeline, PacketTimeline) else None
        last = next((hop for hop in reversed(told) if hop.is_injected), None) if lost else None
        self._end = (last, f"ended: {lost}") if last else None

    def _columns(self, told: Sequence[Hop]) -> dict[_Place, float]:
        """Return where each interface's line is: as far from the next as the words between them are long."""
        longest = max(len(words) for hop in told for words in (hop.route, hop.numbers))
        wire = max(150.0, longest * svg.LETTER + 70)
        longest = max(len(_translation(hop)) for hop in told)
        inside = max(float(_INSIDE), longest * svg.LETTER + 16)
        x = float(_TIMES + _EDGE)
        found = {self._places[0]: x}
        for one, other in pairwise(self._places):
            x += inside if one[0] == other[0] and LOCAL not in (one[1], other[1]) else wire
            found[other] = x
        return found

    def drawn(self, title: str, description: str) -> str:
        parts: list[str] = []
        times: list[str] = []  # above all else: they stay in sight where the rest is scrolled
        y = float(_HEAD + 34)
        for row in self._rows:
            times.append(svg.words(_TIMES - 8, y + 4, f"{row[0].after / 1e6:.3f} ms", "time", "end"))
            parts += self._row(row, y)
            y += _ROW
            for kind, words in self._notes(row):
                for words_line in textwrap.wrap(words, self._letters):
                    parts.append(svg.words(_TIMES, y - 22, words_line, f"note {kind}"))
                    y += _NOTE
        drawn = [*self._frame(y), *parts, *self._entry(y), *times]
        return svg.picture(self._width, y, title, description, drawn, "sequence")

    def _frame(self, bottom: float) -> Iterator[str]:
        """Draw the hosts and their lines."""
        hosts = dict.fromkeys(host for host, _interface in self._places)
        for host in hosts:
            its = [x for (name, _interface), x in self._at.items() if name == host]
            left, right = min(its), max(its)
            label = f"{host}{self._role(host)}"
            half = max(34.0, len(label) * svg.LETTER / 2 + 8 - (right - left) / 2)
            if right > left:
                yield svg.box(left, _HEAD, right - left, bottom - _HEAD - 8, "inside")
            yield svg.box(left - half, 4, right - left + 2 * half, 22, "host")
            yield svg.words((left + right) / 2, 19, label, "name", "middle")
        for (_host, interface), x in self._at.items():
            yield svg.words(x, 42, interface, "faint", "middle")
            yield svg.line(x, _HEAD - 4, x, bottom - 8, "life")

    def _role(self, host: str) -> str:
        timeline = self._timeline
        addresses = {
            timeline.client: f" {timeline.client_address.address}",
            timeline.server: f" {timeline.server_address.address}",
        }
        if timeline.target != timeline.server_address:
            addresses[timeline.node] = f", VIP {timeline.target.address}"
        return addresses.get(host, "")

    def _row(self, row: Sequence[Hop], y: float) -> Iterator[str]:
        for index, hop in enumerate(row):
            before = row[index - 1] if index else None
            onward = row[index + 1] if index + 1 < len(row) else None
            is_taken = hop.arriving is not None and hop.arriving.interface == LOCAL
            yield from self._arrow(hop, y, before if is_taken else None)
            if is_taken or (onward is not None and onward.leaving is None):
                self._keep_change(hop, y)  # what conntrack said stands below the way to the socket
            else:
                yield from self._passing(hop, onward, y)

    def _keep_change(self, hop: Hop, y: float) -> None:
        if hop.change:
            self._life.append((y, hop.change))

    def _arrow(self, hop: Hop, y: float, before: Hop | None) -> Iterator[str]:
        """Draw a packet on its link.

        :param before: how it came to the host whose socket takes it; None for what is on a link.
        """
        x, to_x = self._x(hop.leaving), self._x(hop.arriving)
        if hop.arriving is not None and hop.arriving.interface == LOCAL:
            others = (at for (host, at_name), at in self._at.items() if host == hop.arriving.host and at_name != LOCAL)
            x = self._x(before.arriving) if before else next(others, None)
        if to_x is None:
            assert x is not None
            to_x = x + _STUB * (1 if x < self._right / 2 else -1)
            yield svg.cross(to_x, y)
        if x is None or x == to_x:
            x = to_x + _STUB * (1 if to_x < self._right / 2 else -1)
        kind = "leak" if hop.is_leak else "reset" if hop.is_reset else "injected" if hop.is_injected else "packet"
        yield svg.arrow(x, y, to_x, kind)
        middle = (x + to_x) / 2
        label = f"{hop.route} OOPS" if hop.is_leak else hop.route
        yield svg.words(middle, y - 6, label, kind, "middle")
        if before is not None and before.judged is not None:
            yield svg.words(middle, y + 14, before.judged.state.upper(), _state(before.judged.state), "middle")
        else:
            yield svg.words(middle, y + 14, hop.numbers, f"{kind} numbers", "middle")
        if hop.number:
            yield svg.disc(x + (16 if to_x > x else -16), y, hop.number.strip("()"))

    def _passing(self, hop: Hop, onward: Hop | None, y: float) -> Iterator[str]:
        """Draw what a host makes of a packet between the interface that it came to and the one that it left by."""
        at, leaves = self._x(hop.arriving), self._x(onward.leaving) if onward else None
        if at is None or hop.arriving is None:
            return
        from_left = (self._x(hop.leaving) or at - 1) < at
        other = next((x for place, x in self._at.items() if place[0] == hop.arriving.host and x != at), None)
        middle = (at + (leaves or other or at + (_INSIDE if from_left else -_INSIDE))) / 2
        if hop.judged is not None:
            yield svg.words(middle, y - 6, hop.judged.state.upper(), _state(hop.judged.state), "middle")
        self._keep_change(hop, y)
        if onward is not None and hop.arriving.host != self._timeline.server:
            yield svg.line(at, y, leaves or at, y, "through")
            yield svg.words(
                middle, y + 14, _translation(onward), "leak" if _is_bare(hop, onward) else "faint", "middle"
            )
        if self._end is not None and self._end[0] is hop:
            yield svg.cross(at + (14 if from_left else -14), y)

    def _notes(self, row: Sequence[Hop]) -> Iterator[tuple[str, str]]:
        for hop in row:
            yield from ((note.finding, note.words) for note in hop.notes)
            if self._end is not None and self._end[0] is hop:
                yield "lost", self._end[1]

    def _entry(self, bottom: float) -> Iterator[str]:
        """Draw the life of the conntrack entry beside the packets that changed it."""
        x = self._right + 34
        yield svg.words(x, 19, "conntrack entry", "name")
        yield svg.words(x, 42, f"at {self._timeline.node}", "faint")
        for index, (y, state) in enumerate(self._life):
            until = self._life[index + 1][0] if index + 1 < len(self._life) else bottom - 26
            yield svg.box(x, y, 8, max(4.0, until - y - 2), f"entry e{index % 2}")
            yield svg.words(x + 14, y + 9, state, "new")
        entry = self._timeline.entry
        left = f"{entry.timeout:,} s left" if entry and entry.timeout is not None else "gone" if entry is None else ""
        yield svg.words(x, bottom - 10, f"at the end: {left}" if left else "", "faint")

    def _x(self, sighting: Sighting | None) -> float | None:
        return None if sighting is None else self._at[sighting.host, sighting.interface]


def _rows(told: Sequence[Hop]) -> list[list[Hop]]:
    """Put what comes to a host beside what it sends on of the same packet, next to each other in time."""
    rows: list[list[Hop]] = []
    for hop in told:
        row = next((row for row in reversed(rows[-4:]) if _goes_on(row[-1], hop)), None)
        if row is None:
            rows.append([hop])
        else:
            row.append(hop)
    return rows


def _goes_on(before: Hop, hop: Hop) -> bool:
    came, left = before.arriving, hop.leaving
    if came is None:
        return False
    if left is None:  # to a socket of the same host
        taken = hop.arriving is not None and hop.arriving.interface == LOCAL and hop.arriving.host == came.host
        return taken and came.packet.likeness == hop.sighting.packet.likeness
    is_hairpin = came.interface == left.interface  # two arrows of one link want a row each
    return came.host == left.host and not is_hairpin and came.packet.likeness == left.packet.likeness


def _places(told: Sequence[Hop], timeline: Timeline) -> list[_Place]:
    """Return the interfaces from left to right: the client's, those on the way as packets came by, the server's.

    Those of one host are together, each on the side of the hosts that it leads to.
    """
    seen = [sighting for hop in told for sighting in (hop.leaving, hop.arriving) if sighting is not None]
    found = dict.fromkeys((sighting.host, sighting.interface) for sighting in seen)
    hosts = sorted(dict.fromkeys(host for host, _interface in found), key=partial(_rank, timeline))
    beyond: dict[_Place, list[int]] = {}
    for hop in told:
        if hop.leaving is not None and hop.arriving is not None:
            for one, other in ((hop.leaving, hop.arriving), (hop.arriving, hop.leaving)):
                beyond.setdefault((one.host, one.interface), []).append(hosts.index(other.host))

    def side(place: _Place) -> float:
        if place[1] == LOCAL:
            own = hosts.index(place[0])
            return own if 0 < own < len(hosts) - 1 else -1 if own == 0 else len(hosts)
        return mean(beyond.get(place, [hosts.index(place[0])]))

    return [place for host in hosts for place in sorted((one for one in found if one[0] == host), key=side)]


def _rank(timeline: Timeline, host: str) -> int:
    return 0 if host == timeline.client else 2 if host == timeline.server else 1


def _state(state: str) -> str:
    """Return the class of what conntrack made of a packet."""
    return f"state {'invalid' if state == 'invalid' else 'new' if state == 'new' else 'known'}"


def _translation(onward: Hop) -> str:
    """Return what a host changed of a packet's addresses, in few words."""
    before: Packet | None = onward.before
    after = onward.sighting.packet
    if before is None:
        return "not translated"
    changed = [
        f"{what} {now}"
        for what, was, now in (
            ("src", before.source, after.source),
            ("dst", before.destination, after.destination),
        )
        if was != now
    ]
    return f"→ {', '.join(changed)}"


def _is_bare(hop: Hop, onward: Hop) -> bool:
    """Whether a packet goes on as it came though it should not."""
    return onward.before is None and hop.judged is not None and hop.judged.state == "invalid"
