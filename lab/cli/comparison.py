# SPDX-License-Identifier: MIT
"""A comparison of a node's rules with kube-proxy's, printed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lab.cli.screen import ANY_WIDTH, console, draw, tell

if TYPE_CHECKING:
    from lab.cli.documents import JsonPlace
    from lab.rules.diff import Comparison
    from lab.rules.source import Proxy


def told(comparison: Comparison, proxy: Proxy, name: str, place: JsonPlace) -> int:
    """Print the differences, and return the exit code.

    :param name: of what was compared.
    """
    from lab.rules.output import conclusion, table
    from lab.rules.told import compared

    place.write("rules-diff", lambda: {"nodes": [asdict(compared(comparison, proxy))]})
    if place.on_stdout:
        return 0 if comparison.same else 1
    screen = console()
    if not screen.is_terminal:
        screen.width = ANY_WIDTH  # what is piped on is not wrapped: a rule is one line
    if drawn := table(comparison):
        draw(screen, lambda _width: [drawn])
    for line in conclusion(comparison, proxy, name):
        tell(screen, line)
    return 0 if comparison.same else 1
