# SPDX-License-Identifier: MIT
"""The three standard streams: whatever prints, what becomes of it is known, and told once.

Everything that the command prints goes through these, also what libraries print. A stream that was closed is no
number for the next file that is opened, which would then be written into.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from lab.errors import InputError, MachineError, OutputError, ReaderGoneError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

STDOUT: Final = "standard output"

_USUAL_WIDTH: Final = 80  # columns, of a terminal that does not say
_LEAST_WIDTH: Final = 20

#: What stands for characters that an encoding lacks, one for one so that tables stay straight; others are a "?".
_PLAIN: Final = str.maketrans({"≠": "!", "…": "~"})


class _Input(io.FileIO):
    """Standard input; it may be closed, or a directory."""

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        with _told():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _told():
            return super().readall()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"standard input cannot be read: {error.strerror}") from None


class _Output(io.FileIO):
    """Standard output. It fails once: what is left in buffers after that goes nowhere."""

    failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self.failed:
            try:
                return super().write(data)
            except OSError as error:
                self.failed = True
                if isinstance(error, BrokenPipeError):
                    raise ReaderGoneError from None
                raise OutputError(STDOUT, error) from None
        return memoryview(data).nbytes


class _Errors(io.FileIO):
    """Standard error: where it takes nothing there is nowhere to say so, and the exit code stays what it was."""

    def write(self, data: ReadableBuffer, /) -> int:
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


class _OnTerminal(io.TextIOWrapper):
    """Standard error on a terminal: what is said there is broken between words."""

    def write(self, text: str, /) -> int:
        """Write a text; each line that is whole in it, and of no progress, has parts that fit."""
        if len(text) > 1 and "\r" not in text:
            width = max(width_of(self.fileno()), _LEAST_WIDTH)
            text = "\n".join(_broken(line, width) if len(line) > width else line for line in text.split("\n"))
        return super().write(text)


def width_of(number: int) -> int:
    """Return how wide a terminal is, in columns; COLUMNS says it for all."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    with suppress(OSError):
        return os.get_terminal_size(number).columns or _USUAL_WIDTH
    return _USUAL_WIDTH


def _broken(line: str, width: int) -> str:
    import textwrap

    further = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line, width, subsequent_indent=further, break_on_hyphens=False, break_long_words=False, drop_whitespace=True
    )


@contextmanager
def checked() -> Iterator[None]:
    """Check at the end of the block that everything printed within it is written.

    :raises ReaderGoneError: whoever read standard output has gone.
    :raises OutputError: standard output cannot be written.
    :raises MachineError: standard output is closed.
    """
    _open_closed_ones()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    elif sys.stderr is sys.__stderr__:
        kind = _OnTerminal if os.isatty(2) else io.TextIOWrapper
        sys.stderr = _like(sys.stderr, _Errors(2, "w", closefd=False), "backslashreplace", kind)
    if sys.stdin is sys.__stdin__:
        encoding = sys.stdin.encoding if sys.stdin else None
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(0, closefd=False)), encoding)
    if sys.stdout is None:
        raise MachineError("standard output is closed", "send it to a file, or to /dev/null")
    if sys.stdout is sys.__stdout__:
        sys.stdout = _like(sys.stdout, _Output(1, "w", closefd=False), "lab.plain")
    try:
        yield
    finally:
        sys.stdout.flush()


def _open_closed_ones() -> None:
    """Take the numbers of closed streams, in a way in which using them fails as if they were closed still."""
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end].translate(_PLAIN)
    return lacking.encode("ascii", "replace").decode(), error.end


codecs.register_error("lab.plain", _plain)


def _like(stream: object, raw: io.FileIO, errors: str, kind: type[io.TextIOWrapper] = io.TextIOWrapper) -> TextIO:
    """Return a text stream as Python would have made it, over another file, and with characters that it lacks told."""
    assert isinstance(stream, io.TextIOWrapper)
    return kind(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.line_buffering or stream.write_through,  # PYTHONUNBUFFERED
        write_through=stream.write_through,
    )
