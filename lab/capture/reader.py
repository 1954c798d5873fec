# SPDX-License-Identifier: MIT
"""Reading a capture of whatever form, in one pass and with little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedReader
from typing import TYPE_CHECKING

from lab.capture import pcap, pcapng
from lab.capture.frames import Cut, Frame, Source
from lab.capture.link import KNOWN
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.capture.plain import Plain


class Reader:
    """The packets of one capture, TCP, UDP and ICMP errors: pcap or pcapng, also within gzip, xz or zstd.

    :param lines: of a text that was made into a capture, the line of each packet: it is numbered so.
    :ivar name: the file's.
    :ivar is_text: whether its packets are numbered by lines.
    :ivar is_empty: it has no byte; known at the end.
    :ivar ahead: by how many nanoseconds its clock is ahead of the first file's, as far as is known.
    :ivar cut: the byte at which it is cut short, None where it is whole; known at the end.
    """

    def __init__(self, stream: BufferedReader, name: str, lines: Sequence[int] = ()) -> None:
        self.name, self.is_text = name, bool(lines)
        self.cut: int | None = None
        self.is_empty = False
        self.read = self.ahead = 0
        self._left_out: Counter[str] = Counter()
        self._source = Source(stream, name, lines)

    @property
    def last(self) -> int | None:
        """The time of the last packet that was read, in nanoseconds by the first file's clock; None without one."""
        return None if self._source.last is None else self._source.last - self.ahead

    @property
    def is_bare(self) -> bool:
        """Whether it has no packet, of whatever protocol; known at the end."""
        return self._source.last is None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the packets as they come.

        :raises InputError: the file is no capture, is broken, or of a link that is not known here.
        """
        return self.without(None)

    def without(self, plain: Plain | None) -> Iterator[Frame]:
        """Yield the packets as they come, without those of which there is nothing to tell: these are taken.

        :raises InputError: the file is no capture, is broken, or of a link that is not known here.
        """
        try:
            for frame in self._frames(plain):
                self.read += 1
                yield frame
        except Cut as end:
            if end.at == 0:
                raise InputError("is cut within its header", source=self.name, cure="give more of it") from None
            self.cut = end.at

    def _frames(self, plain: Plain | None) -> Iterator[Frame]:
        try:
            begins = self._source.take(4)
        except Cut:
            if self._source.is_packed:
                raise  # what there is of it could not be unpacked
            raise InputError("is nearly empty", source=self.name, cure="give a capture: pcap or pcapng") from None
        if not begins:
            self.is_empty = True
            return iter(())
        if begins == pcapng.MAGIC:
            return pcapng.frames(self._source, self._note, plain)
        if begins in pcap.MAGIC:
            return pcap.frames(self._source, begins, self._note, plain)
        raise InputError(
            "is no capture", source=self.name, cure="give one of pcap or pcapng, also with gzip, xz or zstd"
        )

    def _note(self, what: str) -> None:
        self._left_out[what] += 1

    @property
    def notes(self) -> Iterator[str]:
        """What whoever reads on has to know of the file, in sentences; complete at its end."""
        if self.is_empty:
            yield f"{self.name}: is empty: it tells nothing"
        elif self.is_bare:
            yield f"{self.name}: has no packet in it: nothing came there while it was captured, or a filter left it out"
        if self.cut is not None:
            yield f"{self.name}: cut short at byte {self.cut:,}: read until there"
        for what, count in self._left_out.items():
            packets = "1 packet is" if count == 1 else f"{count:,} packets are"
            if what == "other":
                yield f"{self.name}: {packets} neither TCP, UDP nor an ICMP error, or cut within the headers: left out"
            elif what == "echo":
                yield f"{self.name}: {packets} of UDP's echo port (7), as the lab's own are that prove an end: left out"
            else:
                yield f"{self.name}: {packets} of a link that is not known here ({what}): left out. Known: {KNOWN}"
