# SPDX-License-Identifier: MIT
"""`lab explain --replay`: what was found, sent once more through a lab's node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from lab.cli.progress import Progress
from lab.cli.screen import steps
from lab.errors import INTERRUPTED, InputError

if TYPE_CHECKING:
    from io import BufferedReader

    from lab.capture.explanation import Explained, Explanation, Finding
    from lab.capture.replayed import Replayed
    from lab.capture.text import Text


def check_names(files: Sequence[str]) -> None:
    """Check that files can be read twice.

    :raises InputError: one is standard input.
    """
    if "-" in files:
        raise InputError("--replay reads captures twice, and standard input is there once", cure="give a file")


def replayed(
    told: Explanation,
    captures: Sequence[str],
    texts: Sequence[Text],
    open_file: Callable[[str, Progress], BufferedReader],
) -> list[Replayed]:
    """Send the connections again of which a packet was found that is out of the ordinary.

    :param captures: the names of the files that are no text.
    :param open_file: opens one, and tells how far it is read.
    :raises InputError: a capture cannot be read once more.
    :raises LabError: there can be no lab, or it failed.
    """
    wanted = _wanted(told)
    if not wanted:
        return []
    from lab.capture.explain import printed
    from lab.capture.naming import Naming
    from lab.capture.reader import Reader
    from lab.capture.resending import scripts

    with contextlib.ExitStack() as opened:
        progress = Progress(opened.enter_context(steps()))
        readers = [Reader(opened.enter_context(open_file(name, progress)), name) for name in captures]
        collected = scripts([*readers, *printed(texts, alone=not readers)], wanted)
    found = {(place.file, place.number) for one in wanted for finding in one.findings for place in finding.packets[:1]}
    import asyncio

    from lab.netns import interrupt, userns
    from lab.trial.replay import replay_all

    async def run() -> list[Replayed]:
        with interrupt.cancels_task(), steps() as say:
            return await replay_all(collected, found, Naming(told.files, told.printed), say)

    userns.ensure()
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def _wanted(told: Explanation) -> list[Explained]:
    """Return the connections that are worth it, no more than a few."""
    from lab.capture.resending import MOST_CONNECTIONS

    odd = [one for one in told.connections if any(_is_of_conntrack(finding) for finding in one.findings)]
    return odd[:MOST_CONNECTIONS]


def notes(told: Explanation, done: Sequence[Replayed]) -> list[str]:
    """Return what has to be said of a replay beside what came of it, in sentences."""
    from lab.capture.resending import MOST_CONNECTIONS

    if not done:
        return ["Nothing is replayed: no packet of a connection is out of the ordinary for conntrack."]
    more = (
        sum(any(_is_of_conntrack(finding) for finding in one.findings) for one in told.connections) - MOST_CONNECTIONS
    )
    if more > 0:
        return [f"Replayed are the first {MOST_CONNECTIONS} connections; {more:,} more have findings."]
    return []


def _is_of_conntrack(finding: Finding) -> bool:
    """Check whether a finding is about a packet that conntrack judged, and not about what got lost or came late."""
    return finding.judgement is not None or bool(finding.case)
