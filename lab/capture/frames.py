# SPDX-License-Identifier: MIT
"""What a reader of captures yields, and the bytes that it reads."""

from __future__ import annotations

import importlib
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from lab.errors import InputError, MissingError
from lab.evidence.packet import Packet

_GZIP: Final = b"\x1f\x8b"  # RFC 1952, 2.3.1
_ZSTD: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1
_XZ: Final = b"\xfd7zXZ\0"  # the .xz file format, 2.1.1.1
_PIECE: Final = 1 << 13  # bytes that are unpacked at a time: what comes of them is all in memory
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


class Unpacked(io.RawIOBase):
    """What is within gzip (RFC 1952), xz or zstd, to the last byte that is there: Python's own give up the last piece.

    :param make: makes what unpacks one frame of it; ``broken``: what that raises.
    :ivar cut: it ends before its end.
    """

    def __init__(self, stream: io.BufferedReader, make: Callable[[], Any], broken: type[Exception]) -> None:
        self.cut = False
        self._stream, self._make, self._broken = stream, make, broken
        self._decoder = make()
        self._ready = self._given = b""

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever takes bytes
        """Unpack into a buffer, and return how many bytes; 0 at the end.

        :raises OSError: it is packed wrongly.
        """
        while not self._ready:
            given = self._given or self._stream.read(_PIECE)
            if not given:
                self.cut = not self._decoder.eof
                return 0
            if self._decoder.eof:  # another frame follows
                self._decoder = self._make()
            try:
                self._ready = self._decoder.decompress(given)
            except self._broken as error:
                raise OSError(str(error)) from None
            self._given = self._decoder.unused_data if self._decoder.eof else b""
        data, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _unzstd(stream: io.BufferedReader, name: str) -> Unpacked:
    try:
        library: Any = importlib.import_module("zstandard")
    except ImportError:
        cure = "pip install zstandard, or unpack it first: zstd -d"
        raise MissingError(f"{name}: packed by zstd, and zstandard is not installed", cure) from None
    return Unpacked(stream, library.ZstdDecompressor().decompressobj, library.ZstdError)


def unpacked(stream: io.BufferedReader, name: str) -> Unpacked | None:
    """Return what is within the gzip, xz or zstd that a stream begins with; None where it is not packed.

    :raises MissingError: it is packed by zstd, and what unpacks that is not installed.
    """
    begins = stream.peek(len(_XZ))
    if begins.startswith(_ZSTD):
        return _unzstd(stream, name)
    if begins.startswith(_XZ):
        import lzma

        return Unpacked(stream, partial(lzma.LZMADecompressor, lzma.FORMAT_XZ), lzma.LZMAError)
    if begins.startswith(_GZIP):
        return Unpacked(stream, partial(zlib.decompressobj, _WITH_HEADER), zlib.error)
    return None


class Source:
    """The bytes of a capture from its beginning on, with the gzip, xz or zstd around them taken off.

    :ivar last: the time of the last packet that was read, in nanoseconds; None where there was none.
    :ivar lines: of a text that was made into a capture, the line of each packet; empty of others.

    :raises MissingError: it is packed by zstd, and what unpacks that is not installed.
    """

    def __init__(self, stream: io.BufferedReader, name: str, lines: Sequence[int] = ()) -> None:
        self.name, self.lines = name, lines
        self.place = 0
        self.last: int | None = None
        self._packed = unpacked(stream, name)
        if self._packed is not None:
            stream = io.BufferedReader(self._packed, BUFFER)
        self._stream = stream

    @property
    def is_packed(self) -> bool:
        """Whether it is within gzip, xz or zstd."""
        return self._packed is not None

    def take(self, length: int) -> bytes:
        """Return the next bytes; none at the end of the file.

        :raises Cut: the file ends in the middle of them.
        :raises InputError: they cannot be read.
        """
        try:
            data = self._stream.read(length)
        except OSError as error:
            words = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be read behind byte {self.place:,}: {words}", source=self.name) from None
        if len(data) < length and (data or (self._packed is not None and self._packed.cut)):
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
        except OSError as error:
            words = getattr(error, "strerror", None) or error
            raise InputError(f"cannot be read behind byte {self.place:,}: {words}", source=self.name) from None
        self.place += len(further)
        if not further and (at < len(data) or (self._packed is not None and self._packed.cut)):
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
