# SPDX-License-Identifier: MIT
"""What a reader of captures yields, and the bytes that it reads."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from lab.errors import InputError
from lab.evidence.packet import Packet

_GZIP: Final = b"\x1f\x8b"  # RFC 1952, 2.3.1
_ZSTD: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1
_WITH_HEADER: Final = 31  # zlib's window bits for gzip
#: Bytes that are read at a time.
BUFFER: Final = 1 << 20

#: No packet is longer: that of a link with the largest offload has 256 KiB, which is also tcpdump's usual snaplen.
LONGEST: Final = 1 << 24

#: Takes in a frame of which there is nothing to tell: bytes, where in them it begins, how many of it were captured, its
#: number and time. False: it has to go the long way.
Taker: TypeAlias = Callable[[bytes, int, int, int, int], bool]

#: Is told a sentence that whoever reads a capture has to know.
Note: TypeAlias = Callable[[str], None]


class Frame(NamedTuple):
    """One IP packet as a capture has it.

    :param time: in nanoseconds since the epoch.
    :param interface: the name of it, as the capture has it.
    :param outgoing: whether the machine that captured sent it; None where the capture does not say.
    :param number: of the packet in its file, from 1 on, as Wireshark counts; of text, that of its line.
    :param section: of its file, from 0 on: what is in another one was captured apart from it.
    :param data: as captured, from the link's header on.
    :param at: where in it the IP header begins.
    """

    time: int
    interface: str
    outgoing: bool | None
    packet: Packet
    number: int
    section: int
    data: bytes
    at: int


@dataclass
class Cut(Exception):  # noqa: N818 - the end of a file, not an error of whoever gave it
    """The file ends in the middle of something that begins at this byte."""

    at: int


class _Gunzip(io.RawIOBase):
    """What is within gzip (RFC 1952), to the last byte that is there: Python's own gives up the last megabyte.

    :ivar cut: it ends before its end.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self.cut = False
        self._stream = stream
        self._rest = b""
        self._decoder = zlib.decompressobj(_WITH_HEADER)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever takes bytes
        while True:
            given = self._rest or self._stream.read(BUFFER)
            if not given:
                self.cut = not self._decoder.eof
                return 0
            if self._decoder.eof:  # another member follows
                self._decoder = zlib.decompressobj(_WITH_HEADER)
            data = self._decoder.decompress(given, len(buffer))
            self._rest = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)


class Source:
    """The bytes of a capture from its beginning on, with the gzip around them taken off.

    :ivar last: the time of the last packet that was read, in nanoseconds; None where there was none.
    :ivar lines: of a text that was made into a capture, the line of each packet; empty of others.

    :raises InputError: it is broken, or packed by what is not read here.
    """

    def __init__(self, stream: io.BufferedReader, name: str, lines: Sequence[int] = ()) -> None:
        self.name, self.lines = name, lines
        self.place = 0
        self.last: int | None = None
        self._gunzip: _Gunzip | None = None
        begins = stream.peek(4)[:4]
        if begins.startswith(_ZSTD):
            raise InputError("is packed by zstd", source=name, cure="unpack it first: zstd -d")
        if begins.startswith(_GZIP):
            self._gunzip = _Gunzip(stream)
            stream = io.BufferedReader(self._gunzip, BUFFER)
        self._stream = stream

    def take(self, length: int) -> bytes:
        """Return the next bytes; none at the end of the file.

        :raises Cut: the file ends in the middle of them.
        :raises InputError: they cannot be read.
        """
        try:
            data = self._stream.read(length)
        except (OSError, zlib.error) as error:
            words = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be read behind byte {self.place:,}: {words}", source=self.name) from None
        if len(data) < length and (data or (self._gunzip is not None and self._gunzip.cut)):
            raise Cut(self.place)
        self.place += len(data)
        return data

    def more(self, data: bytes, at: int) -> bytes:
        """Return what is left of bytes from a place on, with the next ones of the file; as they are at its end.

        :raises Cut: the file ends in the middle of what begins at that place.
        :raises InputError: they cannot be read.
        """
        begun = self.place - (len(data) - at)
        try:
            further = self._stream.read(BUFFER)
        except (OSError, zlib.error) as error:
            words = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be read behind byte {self.place:,}: {words}", source=self.name) from None
        self.place += len(further)
        if not further and (at < len(data) or (self._gunzip is not None and self._gunzip.cut)):
            raise Cut(begun)
        return data[at:] + further

    def all_of(self, length: int, begun: int) -> bytes:
        """Return the next bytes of what began at a byte of the file.

        :raises Cut: the file has no more.
        """
        try:
            data = self.take(length)
        except Cut:
            raise Cut(begun) from None
        if len(data) < length:
            raise Cut(begun)
        return data

    def broken(self, what: str) -> InputError:
        """Return the error of a capture that says what cannot be."""
        return InputError(f"broken: {what}", source=self.name)
