"""Draws docs/sequence.svg and docs/window.svg: what the page of `lab run --html` shows of the bug, from a run here.

.venv/bin/python docs/make/diagram.py sequence > docs/sequence.svg
.venv/bin/python docs/make/diagram.py window > docs/window.svg
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from lab.report.sequence import sequence
from lab.report.window_diagram import window_diagram
from lab.results.result import Report
from lab.results.saved import from_json

_STYLE: Final = Path(__file__).parents[2] / "lab" / "report" / "page.css"


def draw(which: str) -> str:
    """Return a picture of a run here: its sequence of packets, or conntrack's window."""
    command = [sys.executable, "-m", "lab", "run", "beyond-window", "--fix", "none", "--packets", "--json", "-"]
    found = from_json(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert isinstance(found, Report)
    [tally] = found.tallies
    assert tally.sample is not None
    title = "beyond-window, fix none"
    if which == "window":
        return standing_alone(window_diagram(tally.sample, title))
    return standing_alone(sequence(tally.sample.timeline, title, tally.sample.verdict.outcome))


def standing_alone(picture: str) -> str:
    """Return a picture of the page as a file of its own, with the page's colors, light and dark."""
    style = _STYLE.read_text()
    colors = style[: style.index("* { box-sizing")]
    own = "\n".join(line for line in style.splitlines() if line.startswith("svg "))
    head, rest = picture.split(">", 1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    back = '<rect width="100%" height="100%" style="fill: var(--sheet)"/>'
    return f"{head}><style>\n{colors}{own}\n</style>{back}{rest}"


if __name__ == "__main__":
    print(draw(sys.argv[1]))
