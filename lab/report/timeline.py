# SPDX-License-Identifier: MIT
"""A timeline, drawn for a terminal or as plain text: every packet on every link, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from lab.evidence.timeline import DownloadsTimeline, Timeline
from lab.report.downloads import load_lines
from lab.report.ending import ending
from lab.report.hops import Finding, Hop, hops
from lab.report.walks import walks
from lab.tones import FINE, HARMLESS, NOTABLE, OOPS, QUIET

_INDENT: Final = " " * 13  # below the times
_STATE_STYLES: Final = {"invalid": OOPS, "new": NOTABLE}
_STYLES: Final = {
    Finding.INJECTED: NOTABLE,
    Finding.REASON: HARMLESS,
    Finding.INVALID: OOPS,
    Finding.LEAK: OOPS,
    Finding.END: OOPS,
}


def timeline_lines(timeline: Timeline) -> list[Text]:
    """Draw a timeline: segments, datagrams and ICMP errors on every link, what conntrack said, how the sockets ended.

    Of downloads under load: how each ended, and what was counted.
    """
    if isinstance(timeline, DownloadsTimeline) and timeline.load is not None:
        lines = load_lines(timeline, timeline.load)
    else:
        lines = [*_packets(timeline), *ending(timeline)]
    if timeline.left_out:
        words = f"not kept: {timeline.left_out} sightings of packets; `--packets` would have kept them"
        lines.append(Text(words, HARMLESS))
    disturbed = [Text(timeline.disturbed, OOPS)] if timeline.disturbed else []
    return [*lines, *disturbed, *(Text(f"found: {finding}") for finding in timeline.findings), *walks(timeline)]


def timeline_text(timeline: Timeline) -> str:
    """Return a timeline as plain text."""
    return "\n".join(line.plain.rstrip() for line in timeline_lines(timeline))


def _packets(timeline: Timeline) -> Iterator[Text]:
    """Draw every packet on every link, with what is to be said about it below."""
    told = hops(timeline)
    places = max((len(hop.place) for hop in told), default=0)
    routes = max((len(hop.route) for hop in told), default=0)
    for hop in told:
        yield _line(hop, places, routes)
        for note in hop.notes:
            yield Text(f"{_INDENT}{note.words}", _STYLES[note.finding])


def _line(hop: Hop, places: int, routes: int) -> Text:
    line = Text()
    line.append(f"{hop.after / 1e6:8.3f} ms  ", QUIET)
    line.append(f"{hop.place:{places}}  ")
    line.append(f"{hop.route:{routes}}  ", OOPS if hop.is_leak else "")
    line.append(hop.numbers, NOTABLE if hop.is_injected else "")
    if hop.judged is not None:
        line.append("  ")
        line.append(hop.judged.state.upper(), _STATE_STYLES.get(hop.judged.state, FINE))
        if hop.change:
            line.append(f", entry {hop.change}", NOTABLE)
    if hop.number:
        line.append(f"  {hop.number}", NOTABLE)
    return line
