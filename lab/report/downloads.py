# SPDX-License-Identifier: MIT
"""Downloads under load, for a terminal: how each ended, and what was counted."""

from __future__ import annotations

from rich.text import Text

from lab.evidence.judgement import Judgement
from lab.evidence.timeline import DownloadsTimeline, Load
from lab.tones import FINE, HARMLESS, OOPS
from lab.verdict.downloads import reasons


def load_lines(timeline: DownloadsTimeline, load: Load) -> list[Text]:
    """Report a load: a line a download, then what the router, the kernels and conntrack counted."""
    count = len(load.downloads)
    speed = sum(one.received for one in load.downloads) * 8 / load.seconds / 1e6
    lines = [
        Text(
            f"{count} downloads of {load.size:,} bytes at once, from {timeline.target}:"
            f" {load.seconds:.1f} s, {speed:.0f} Mbit/s"
        )
    ]
    for number, one in enumerate(load.downloads, start=1):
        whole = one.exit_code == 0 and one.received == load.size and one.intact
        words = one.words or f"curl: ({one.exit_code})"
        intact = "the server's" if one.intact else "NOT THE SERVER'S"
        lines.append(
            Text(f"  {number}  {one.received:9,} bytes, {intact}; {words}", FINE if whole else OOPS),
        )
    lines.append(
        Text(f"held back: {load.held:,} packets; late, for the client had their bytes already: {load.late:,} segments")
    )
    for judgement, style in ((Judgement.IGNORED, HARMLESS), (Judgement.INVALID, OOPS)):
        number = sum(judged.judgement is judgement for judged in timeline.judged)
        lines.append(Text(f"{judgement}: {number:,} packets", style if number else ""))
        lines += [Text(f"  {often:5,}  {reason}") for reason, often in reasons(timeline, judgement).most_common()]
    reset = ", ".join(f"at {host} {number}" for host, number in load.resets.items())
    lines.append(Text(f"connections reset: {reset}"))
    return lines
