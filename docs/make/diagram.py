"""Draws docs/sequence.svg: what the page of `lab run --html` shows of the bug, from a run here.

.venv/bin/python docs/make/diagram.py > docs/sequence.svg
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from lab.report.sequence import sequence
from lab.results.result import Report
from lab.results.saved import from_json

_STYLE: Final = Path(__file__).parents[2] / "lab" / "report" / "page.css"


def draw() -> str:
    """Return the picture of a run here."""
    command = [sys.executable, "-m", "lab", "run", "beyond-window", "--fix", "none", "--packets", "--json", "-"]
    found = from_json(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert isinstance(found, Report)
    [tally] = found.tallies
    assert tally.sample is not None
    return standing_alone(sequence(tally.sample.timeline, "beyond-window, fix none", tally.sample.verdict.outcome))


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
    print(draw())
