# SPDX-License-Identifier: MIT
"""Who is on one segment: the ends of links that hear each other's frames, by shared links and by hosts' bridges.

A link of more than two ends is a segment by itself. A bridge joins the links of its ports: what comes by one of them is
passed on by the others (IEEE 802.1D, 7.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.topology.model import End, Link


class Neighbour(NamedTuple):
    """An end that another one's frames come to.

    :param bridging: the hosts whose bridges pass them on, in order.
    """

    end: End
    bridging: tuple[str, ...] = ()


class CircleError(Exception):
    """Frames go in a circle.

    :ivar end: the bridge's port by which they come back.
    """

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.end = end


class Segments:
    """The segments of a topology's links.

    Of a bridge's port, neighbours are those that are reached by this port.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self._links: dict[tuple[str, str], Link] = {}
        self._ports: dict[tuple[str, str], list[End]] = {}
        self._known: dict[tuple[str, str], tuple[Neighbour, ...]] = {}
        for link in links:
            for end in link.ends:
                self._links[end.host, end.interface] = link
                if end.bridge:
                    self._ports.setdefault((end.host, end.bridge), []).append(end)

    def link(self, end: End) -> Link:
        """Return the link of an end."""
        return self._links[end.host, end.interface]

    def neighbours(self, end: End) -> tuple[Neighbour, ...]:
        """Return whom an end's frames come to, the nearest first.

        :raises CircleError: they go in a circle.
        """
        key = (end.host, end.interface)
        if key not in self._known:
            self._known[key] = tuple(self._reached(end))
        return self._known[key]

    def ports(self, end: End) -> tuple[End, ...]:
        """Return the ports of the bridge that an end is a port of; the end alone where it is none."""
        return tuple(self._ports[end.host, end.bridge]) if end.bridge else (end,)

    def _reached(self, start: End) -> Iterator[Neighbour]:
        waiting: list[tuple[End, tuple[str, ...]]] = [(start, ())]
        seen = {(start.host, start.bridge)} if start.bridge else set()
        for end, bridging in waiting:  # which grows meanwhile
            for other in self.link(end).ends:
                if other is end or other == end:
                    continue
                yield Neighbour(other, bridging)
                if not other.bridge:
                    continue
                if (other.host, other.bridge) in seen:
                    raise CircleError(other)
                seen.add((other.host, other.bridge))
                waiting += [(port, (*bridging, other.host)) for port in self.ports(other) if port != other]
