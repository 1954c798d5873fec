"""Draws docs/lab-run.svg: what `lab run beyond-window` shows here, from the packet on that breaks the connection.

::

    python docs/make/picture.py
"""

from __future__ import annotations

import io
import platform
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from lab.report import terminal
from lab.report.timeline import timeline_lines
from lab.results.result import Report
from lab.results.saved import from_json

PICTURE = Path(__file__).parents[1] / "lab-run.svg"
WIDTH = 122  # columns: the longest of the packets' lines
FIRST = "injected:"
#: Colours that are read on light pages and dark ones: the picture brings its own ground.
THEME = TerminalTheme(
    background=(24, 27, 33),
    foreground=(214, 219, 227),
    normal=[
        (60, 64, 72),
        (240, 113, 120),
        (126, 200, 130),
        (229, 192, 110),
        (110, 170, 240),
        (200, 140, 230),
        (90, 200, 210),
        (214, 219, 227),
    ],
)


def run() -> Report:
    """Return what comes of the case with each of the fixes that `lab run` tries by itself."""
    command = [sys.executable, "-m", "lab", "run", "beyond-window", "--packets", "--json", "-"]
    found = from_json(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert isinstance(found, Report)
    return found


def draw(report: Report) -> str:
    """Return the picture, without anything that a page would have to load."""
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    sample = report.tallies[0].sample
    assert sample is not None
    lines = [line for line in timeline_lines(sample.timeline) if line.plain.strip()]
    first = next(number for number, line in enumerate(lines) if FIRST in line.plain) - 1
    screen.print(
        Text.assemble(("$ ", "green"), f"lab run beyond-window     # on Linux {_kernel()}"), "\n...", highlight=False
    )
    for line in lines[first:]:
        screen.print(line, crop=True, no_wrap=True, overflow="ellipsis")
    screen.print()
    for table in terminal.tables(report.tallies, WIDTH):
        screen.print(table)
    svg = screen.export_svg(title="kube-proxy-lab", theme=THEME, unique_id="lab")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _kernel() -> str:
    """Return the kernel's version, without what its builder appended."""
    return re.sub(r"[^\d.].*", "", platform.release())


if __name__ == "__main__":
    PICTURE.write_text(draw(run()))
