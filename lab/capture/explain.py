# SPDX-License-Identifier: MIT
"""Explaining captures: from their packets to what is to be told of each connection."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.capture.explanation import Explanation
from lab.capture.findings import explained
from lab.capture.following import Follower, in_order
from lab.capture.reader import Reader
from lab.vocabulary import Behaviour


def explain(readers: Sequence[Reader], behaviour: Behaviour) -> Explanation:
    """Return what captures tell, which are of one time and so are read as one.

    :raises InputError: one of them is none, or broken.
    """
    follower = Follower(behaviour)
    with _uncollected():
        for frame, file in in_order(readers, follower.plain):
            follower.see(frame, file)
    notes = [note for reader in readers for note in reader.notes]
    if follower.forgotten:
        notes.append(f"{follower.forgotten:,} connections that came first were given up, to bound memory")
    return Explanation(
        behaviour=behaviour,
        packets=sum(reader.read for reader in readers) + follower.plain.taken,
        connections=tuple(explained(connection, behaviour) for connection in follower.connections),
        notes=tuple(notes),
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Have no garbage looked for meanwhile: there is little in circles, and looking took a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
