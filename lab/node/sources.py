# SPDX-License-Identifier: MIT
"""What is given of a node, as named parts: files, directories, archives, standard input.

Nothing is ever written: an archive's members are read in memory, and only so many and so much of them.
"""

from __future__ import annotations

import gzip
import io
import stat
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Final

from lab.errors import InputError

MAX_BYTES: Final = 256 << 20
"""Of all parts together: both families' rules of 10,000 Services, as text and as JSON, are a half of it."""

MAX_PARTS: Final = 200
"""`lab collect` makes some twenty."""

_CURE: Final = "give the node.tar that `lab collect` makes, or its files"
_BROKEN: Final = (tarfile.TarError, zlib.error, EOFError, ValueError, OverflowError, MemoryError)
_AT: Final = 257  # where a tar says that it is one (POSIX.1-1988 and GNU)


@dataclass(frozen=True)
class Part:
    """Something of a node.

    :param name: what to call it in messages: the file, and the member in an archive.
    :param bundled: it is of an archive or a directory, which may have more than is needed.
    """

    name: str
    data: bytes = field(repr=False)
    bundled: bool = False

    @property
    def file(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.name.rpartition(": ")[2] if self.bundled else self.name).name


class _Budget:
    """How much may still be read."""

    def __init__(self) -> None:
        self.bytes, self.parts = MAX_BYTES, MAX_PARTS

    def take(self, size: int, source: str) -> None:
        """Count a part.

        :raises InputError: it is one too many, or too large.
        """
        self.parts -= 1
        self.bytes -= size
        if self.parts < 0:
            raise InputError(f"more than {MAX_PARTS} parts", source=source, cure=_CURE)
        if self.bytes < 0:
            raise InputError(f"more than {MAX_BYTES >> 20} MiB", source=source, cure=_CURE)


def parts(sources: Sequence[str]) -> Iterator[Part]:
    """Read what is given, part by part.

    :param sources: files, directories and archives; ``-`` is standard input.
    :raises InputError: something cannot be read, is too large, or is an archive that is broken or meant to do harm.
    """
    budget = _Budget()
    if list(sources).count("-") > 1:
        raise InputError("standard input twice", cure="give - once")
    for source in sources:
        name = "<stdin>" if source == "-" else source
        try:
            if source == "-":
                yield from _opened(sys.stdin.buffer, name, budget)
            elif Path(source).is_dir():
                yield from _directory(Path(source), budget)
            else:
                with Path(source).open("rb") as file:
                    yield from _opened(file, name, budget)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InputError(f"cannot be read: {reason}", source=name or repr(source)) from None


def _directory(directory: Path, budget: _Budget) -> Iterator[Part]:
    found = False
    paths = list(islice(directory.rglob("*"), 4 * MAX_PARTS))  # not all of a file system
    for path in sorted(paths):
        if path.is_dir():
            continue
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError("is no file", source=path, cure=_CURE)
        found = True
        with path.open("rb") as file:
            for part in _opened(file, str(path), budget):
                yield part if part.bundled else Part(part.name, part.data, bundled=True)
    if not found:
        raise InputError("is empty: there is no file in it", source=directory, cure=_CURE)


def _opened(file: IO[bytes], name: str, budget: _Budget) -> Iterator[Part]:
    data = file.read(budget.bytes + 1)
    if data.startswith(b"\x1f\x8b"):
        data = _unzipped(data, name, budget)
    if data[_AT : _AT + 5] == b"ustar":
        yield from _members(data, name, budget)
    else:
        budget.take(len(data), name)
        yield Part(name, data)


def _unzipped(data: bytes, name: str, budget: _Budget) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            found = file.read(budget.bytes + 1)
    except (*_BROKEN, OSError) as error:
        raise InputError(f"no gzip that can be read: {error}", source=name, cure=_CURE) from None
    if len(found) > budget.bytes:
        raise InputError(f"more than {MAX_BYTES >> 20} MiB", source=name, cure=_CURE)
    return found


def _members(data: bytes, name: str, budget: _Budget) -> Iterator[Part]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                place = f"{name}: {_printable(member.name.removeprefix('./'))}"
                if member.isdir():
                    budget.take(0, place)
                    continue
                _check(member, place)
                budget.take(member.size, place)
                file = archive.extractfile(member)
                content = file.read() if file else b""
                if len(content) != member.size:
                    raise InputError("an archive that is cut off", source=place, cure=_CURE)
                yield Part(place, content, bundled=True)
    except InputError:
        raise
    except (*_BROKEN, OSError) as error:
        raise InputError(f"no archive that can be read: {error}", source=name, cure=_CURE) from None


def _check(member: tarfile.TarInfo, place: str) -> None:
    """Refuse what no collected node has.

    :raises InputError: it is a link, a device or the like, or its name leads out of the archive.
    """
    path = PurePosixPath(member.name)
    if member.size < 0 or path.is_absolute() or ".." in path.parts:
        raise InputError("a name that leads out of the archive", source=place, cure=_CURE)
    if not member.isreg() or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "no plain file"
        raise InputError(f"{kind} in the archive", source=place, cure=_CURE)


def _printable(name: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in name[:200])
