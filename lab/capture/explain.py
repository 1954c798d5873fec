# SPDX-License-Identifier: MIT
"""Explaining captures: from their packets to what is to be told of each connection."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.capture import asked, icmp
from lab.capture.datagrams import Datagrams
from lab.capture.explanation import Explanation
from lab.capture.findings import explained
from lab.capture.following import Follower
from lab.capture.frames import Frame
from lab.capture.headers import quoted_ends
from lab.capture.order import in_order
from lab.capture.reader import Reader
from lab.evidence.packet import UDP
from lab.vocabulary import Behaviour


def explain(readers: Sequence[Reader], behaviour: Behaviour) -> Explanation:
    """Return what captures tell, which are of one time and so are read as one.

    :raises InputError: one of them is none, or broken.
    """
    follower = Follower(behaviour)
    datagrams = Datagrams()
    strangers = 0
    notes: list[str] = []
    with _uncollected():
        for frame, file in in_order(readers, follower.plain, notes):
            packet = frame.packet
            if packet.tcp is not None:
                follower.see(frame, file)
            elif packet.protocol == UDP:
                datagrams.see(frame, file)
            else:
                strangers += not _took_error(frame, file, follower, datagrams)
    notes += (note for reader in readers for note in reader.notes)
    if strangers:
        notes.append(f"ICMP errors about packets that are not there: {strangers:,}")
    if follower.forgotten or datagrams.forgotten:
        count = follower.forgotten + datagrams.forgotten
        notes.append(f"{count:,} connections that came first were given up, to bound memory")
    return Explanation(
        behaviour=behaviour,
        packets=sum(reader.read for reader in readers) + follower.plain.taken,
        connections=(
            *(explained(connection, behaviour) for connection in follower.connections),
            *asked.explained(datagrams.exchanges),
        ),
        notes=tuple(notes),
    )


def _took_error(frame: Frame, file: str, follower: Follower, datagrams: Datagrams) -> bool:
    """Take an ICMP error into account; False where nobody's packet that was seen is quoted in it."""
    quoted = quoted_ends(frame.data, frame.at)
    if quoted is None:
        return False
    owner = follower.of(frame.section, *quoted) or datagrams.of(frame.section, *quoted)
    if owner is None:
        return False
    icmp.take(owner, frame, file)
    return True


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
