# SPDX-License-Identifier: MIT
"""Where a segment lies in sequence space, beside the four edges of conntrack's window: which one it is beyond."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.evidence.follow import distance
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, Packet
from lab.evidence.timeline import PacketTimeline
from lab.evidence.window import Edges, Tracker
from lab.report import svg
from lab.results.result import Result

_WIDTH, _LEFT, _RIGHT = 780, 280, 540  # pixels: of all, and of the window's two edges
_LANE: Final = 116
_TOP: Final = 30
_FARTHEST: Final = 1 << 31  # bytes: no two numbers are farther apart


@dataclass(frozen=True)
class _Lane:
    """One of the two numbers of a segment, and what it may be.

    :param first: the number that what is told is relative to.
    :param low: the first number that is allowed, and the condition; ``high``, the last one.
    :param begin: of the segment, and its end.
    """

    title: str
    first: int
    low: tuple[str, int, str]
    high: tuple[str, int, str]
    begin: int
    end: int


def window_diagram(result: Result, title: str) -> str:
    """Return the diagram as SVG; empty where the window was not asked, or what it was is not known."""
    timeline = result.timeline
    if not isinstance(timeline, PacketTimeline) or timeline.injected is None:
        return ""
    prediction = timeline.injected.predictions.get(timeline.node)
    judged = timeline.judged_at(timeline.node, timeline.injected.packet)
    edges = _edges(result, timeline, judged.packet) if judged is not None else None
    if prediction is None or prediction.state or edges is None or judged is None or judged.packet.tcp is None:
        return ""
    parts: list[str] = []
    for index, lane in enumerate(_lanes(timeline, judged.packet, edges)):
        parts += _drawn(lane, _TOP + index * _LANE, prediction.condition, prediction.excess)
    words = f"{prediction}" + (f"; the kernel: {judged.reason}" if judged.reason else "")
    height = _TOP + 2 * _LANE - 6
    return svg.picture(_WIDTH, height, title, words, [_caption(), *parts], "window")


def _edges(result: Result, timeline: PacketTimeline, packet: Packet) -> Edges | None:
    """Return what the packet was held against, by the model, from what came to the node before."""
    before: list[Packet] = []
    ways = {(packet.source, packet.destination)}
    for event in timeline.entry_events:
        tuples = (event.entry.original, event.entry.reply)
        if (packet.source, packet.destination) in tuples:
            ways |= set(tuples)
    for judged in timeline.judged:
        one = judged.packet
        if judged.host != timeline.node or one.tcp is None or (one.source, one.destination) not in ways:
            continue
        if one.likeness == packet.likeness:
            break
        before = [one] if judged.judgement is Judgement.NEW else [*before, one]
    return Tracker(before[0].source, result.behaviour).after(before).edges(packet) if before else None


def _lanes(timeline: PacketTimeline, packet: Packet, edges: Edges) -> Iterator[_Lane]:
    tcp = packet.tcp
    assert tcp is not None
    sides = (timeline.client, timeline.server)
    sender, receiver = sides if timeline.injected and timeline.injected.host == timeline.client else reversed(sides)
    first, other = timeline.first_numbers.get(sender, 0), timeline.first_numbers.get(receiver, 0)
    low, high = edges.sequence
    yield _Lane(
        f"what {sender} sends",
        first,
        ("II", low, f"a window behind what {sender} sent"),
        ("I", high, f"the last that {receiver} granted"),
        tcp.sequence,
        packet.end,
    )
    if tcp.flags & ACK:
        low, high = edges.acknowledgement
        number = tcp.acknowledgement
        for _left, right in tcp.sack_blocks:  # the kernel looks at what is selected as well
            number = right if distance(number, right) > 0 else number
        oldest, newest = ("IV", low, "older ones are no use"), ("III", high, f"the last that {receiver} sent")
        yield _Lane(f"what {sender} acknowledges", other, oldest, newest, number, number)


def _caption() -> str:
    return svg.words(
        0, 12, "between the edges to scale, outside of them the farther the closer together; relative numbers", "faint"
    )


def _drawn(lane: _Lane, top: float, broken: str, excess: int) -> Iterator[str]:
    y = top + 52
    yield svg.words(0, y + 4, lane.title, "name")
    yield svg.line(_LEFT - 106, y, _WIDTH - 70, y, "life")
    yield svg.box(_LEFT, y - 14, _RIGHT - _LEFT, 28, "inside")
    for x, (condition, number, meaning), anchor in ((_LEFT, lane.low, "end"), (_RIGHT, lane.high, "start")):
        is_broken = condition == broken
        yield svg.line(x, y - 20, x, y + 20, "edge broken" if is_broken else "edge")
        away = -4 if anchor == "end" else 4
        kind = "leak" if is_broken else ""
        yield svg.words(x + away, y + 30, f"{condition}: {distance(lane.first, number):,}", kind, anchor)
        yield svg.words(x + away, y + 43, meaning, "faint", anchor)
    begin, end = _x(lane, lane.begin), _x(lane, lane.end)
    is_out = broken in (lane.low[0], lane.high[0])
    yield svg.box(begin, y - 9, max(5.0, end - begin), 18, "segment out" if is_out else "segment")
    words = f"{distance(lane.first, lane.begin):,}"
    words += f", {length:,} long" if (length := distance(lane.begin, lane.end)) else ""
    words += f": out by {excess:,}" if is_out else ""
    yield svg.words(min(max(begin, 170.0), _WIDTH - 170), y - 26, words, "leak" if is_out else "", "middle")


def _x(lane: _Lane, number: int) -> float:
    """Return where a number lies."""
    low, high = lane.low[1], lane.high[1]
    behind, beyond = distance(number, low), distance(high, number)
    if behind > 0:
        return _LEFT - 6 - 100 * math.log(1 + behind) / math.log(_FARTHEST)
    if beyond > 0:
        return _RIGHT + 6 + 160 * math.log(1 + beyond) / math.log(_FARTHEST)
    return _LEFT + (_RIGHT - _LEFT) * distance(low, number) / max(1, distance(low, high))
