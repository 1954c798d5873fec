"""Draws docs/reach.svg: what `lab reach` shows here of a Service by several releases of kube-proxy.

.venv/bin/python docs/make/reach.py > docs/reach.svg
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

from docs.make.picture import THEME
from lab.report.reach import lines, tables
from lab.results.reach import ReachReport
from lab.results.reach_saved import from_data
from lab.results.saved import parsed

WORDS: Final = (
    *("reach", "services", "--service", "leaving", "--from", "outside", "--to", "loadbalancer"),
    *("--proxy-version", "v1.25,v1.26,v1.36", "--proxy-mode", "both"),
)
WIDTH: Final = 124  # columns: the command's own line


def run() -> ReachReport:
    """Return what comes of it here."""
    command = [sys.executable, "-m", "lab", *WORDS, "--json"]
    return from_data(*parsed(subprocess.run(command, capture_output=True, check=True).stdout))


def draw(found: ReachReport) -> str:
    """Return the picture, without anything that a page would have to load."""
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    screen.print(Text.assemble(("$ ", "green"), " ".join(("lab", *WORDS))), highlight=False)
    for table in tables(found.reaches):
        screen.print(table)
    *_, last = lines(found.reaches)
    screen.print(last)
    svg = screen.export_svg(title="kube-proxy-lab", theme=THEME, unique_id="reach")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    print(draw(run()))
