# SPDX-License-Identifier: MIT
"""The table of the reasons that conntrack gives, as `lab show --reasons` prints it."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

from lab.cli.documents import JsonPlace
from lab.cli.screen import console
from lab.errors import InputError


def show_reasons(cases: list[str], *, json: str | None) -> None:
    """Print every reason.

    :raises InputError: cases were given as well.
    """
    from lab.report.reasons import LEGEND, as_data, lines

    if cases:
        raise InputError("--reasons and a case", cure="one of them: `lab show CASE` tells of a case")
    place = JsonPlace(json)
    place.write("reasons", lambda: {"reasons": [asdict(one) for one in as_data()]})
    if place.on_stdout:
        return
    screen = console()
    intro = (
        "What conntrack says of packets that it does not like, with nf_conntrack_log_invalid=6 (TCP) or 255 (all) in"
        " the kernel's log, and what became of them. `lab explain LOG` answers lines of a log."
    )
    for words in (intro, LEGEND, *lines()):
        further = " " * (len(words) - len(words.lstrip()))
        filled = textwrap.fill(words, screen.width, subsequent_indent=further, break_on_hyphens=False)
        screen.print(filled, soft_wrap=True, markup=False, emoji=False, highlight=False)
