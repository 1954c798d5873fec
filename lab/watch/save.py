# SPDX-License-Identifier: MIT
"""A capture of the connections that leaked, and of no others; whole at any time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from lab.errors import OutputError
from lab.observed.lines import finding
from lab.report.pcapng_blocks import RAW, interface, packet, section

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.evidence.sighting import Sighting
    from lab.observed.found import Finding


class Output(Protocol):
    """Where a capture goes, piece by piece."""

    def write(self, data: bytes, /) -> int:
        """Write all of it, or nothing and raise OSError."""
        ...


class Saved:
    """A capture that is written as leaks are found.

    :param output: where to; ``place``: what the user calls it.
    :param version: the lab's, for the head of the capture.
    :param what: is watched.
    :ivar packets: how many were written.
    :raises OutputError: it cannot be written.
    """

    def __init__(self, output: Output, place: str, version: str, what: str) -> None:
        self.packets = 0
        self._output, self._place = output, place
        self._kernel = os.uname().release
        self._numbers: dict[tuple[str, str], int] = {}
        told = f"{what}: the connections that leaked, with the beginnings of their packets; not all are here"
        self._put(section(version, self._kernel, told))

    def write(self, sightings: Iterable[Sighting], found: Iterable[Finding]) -> None:
        """Write packets, those that something was found of with a comment.

        :raises OutputError: they cannot be written, or the file is no longer there; what was written before is whole.
        """
        said = {id(one.sighting): finding(one) for one in found}
        blocks = []
        for seen in sightings:
            comments = (said[id(seen)],) if id(seen) in said else ()
            number, block = self._numbered(seen.host, seen.interface)
            length = _length(seen.data)
            blocks.append(
                block + packet(number, seen.time, seen.data, outgoing=seen.outgoing, comments=comments, length=length)
            )
        self._put(b"".join(blocks))
        self.packets += len(blocks)

    def _put(self, data: bytes) -> None:
        try:
            self._output.write(data)
        except OSError as error:
            raise OutputError(self._place, error) from None

    def _numbered(self, host: str, name: str) -> tuple[int, bytes]:
        known = self._numbers.get((host, name))
        if known is not None:
            return known, b""
        number = self._numbers[host, name] = len(self._numbers)
        return number, interface(host, name, "", self._kernel, RAW)


def _length(data: bytes) -> int:
    """Return how long a packet is of which this is the beginning, by its IP header."""
    told = int.from_bytes(data[2:4]) if data[0] >> 4 == 4 else 40 + int.from_bytes(data[4:6])
    return max(told, len(data))
