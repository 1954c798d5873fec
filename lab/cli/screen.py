# SPDX-License-Identifier: MIT
"""A terminal to draw on: tables that fit into it, and what is being done while nothing is there to draw yet."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from lab.cli.output import width_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Columns; more than a table needs.
ANY_WIDTH: Final = 10_000
_LEAST_WIDTH: Final = 20  # columns; in less there is no room for a word


def console() -> Console:
    """Return the terminal to draw on; a file or a pipe has no width, unless COLUMNS gives it one."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))  # of which bold is no colour to rich, but a control sequence to readers
    made = Console(highlight=False, color_system=None if plain else "auto")
    if not (made.is_terminal or "COLUMNS" in os.environ):
        made.width = ANY_WIDTH
    made.width = max(made.width, _LEAST_WIDTH)
    return made


def tell(on: Console, line: Text | str, style: str = "") -> None:
    """Print a line: on a terminal broken between words, elsewhere whole, for whoever reads a pipe takes it by lines."""
    from rich.text import Text

    from lab.report.wrapped import wrapped

    whole = line if isinstance(line, Text) else Text(line, style)
    for part in wrapped(whole, on.width) if on.is_terminal else [whole]:
        on.print(part, soft_wrap=True)


def tell_all(lines: Iterable[str]) -> None:
    """Print lines likewise, in no colours."""
    if not sys.stdout.isatty():
        for line in lines:  # without what takes long to import
            print(line)
        return
    screen = console()
    for line in lines:
        tell(screen, line)


def shortened(line: str, width: int) -> str:
    """Return a line that fits, its end left out where it would not."""
    return line if len(line) <= width else f"{line[: width - 4].rstrip()} ..."


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Return what says on a terminal's standard error what is done now; at the end nothing of it is left there."""
    shown = os.isatty(2)
    line = ""  # what stands there; it is wiped by blanks, which any terminal knows

    def write(text: str) -> None:
        if shown:
            print(text, end="", file=sys.stderr, flush=True)

    def say(what: str) -> None:
        nonlocal line
        fits = max(width_of(2), _LEAST_WIDTH) - 1  # what is wider cannot be wiped
        before, line = line, shortened(f"{what} ...", fits)
        write(f"\r{line.ljust(len(before))}")

    try:
        yield say
    finally:
        write(f"\r{' ' * len(line)}\r")


def draw(on: Console, tables: Callable[[int], Iterable[Table]]) -> None:
    """Print tables; where words have no room beside each other, a line for each cell.

    :param tables: makes them for a number of columns.
    """
    from rich.measure import Measurement

    from lab.report.unfolded import unfolded

    made = list(tables(on.width))
    unbounded = on.options.update(width=ANY_WIDTH)
    if all(Measurement.get(on, unbounded, table).minimum <= on.width for table in made):
        for table in made:
            _print(on, table)
        return
    for table in tables(ANY_WIDTH):
        for line in unfolded(table):
            tell(on, line)


def _print(on: Console, table: Table) -> None:
    """Print a table; of what is piped on, no line ends with the blanks that fill its last column."""
    if on.is_terminal:
        on.print(table)
        return
    with on.capture() as captured:
        on.print(table)
    for line in captured.get().splitlines():
        on.print(line.rstrip(), markup=False, emoji=False, soft_wrap=True)
