# SPDX-License-Identifier: MIT
"""A kernel that a guest can boot, and its version's place among others."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.errors import InputError

_NUMBERS: Final = re.compile(r"\d+")
_SERIES: Final = re.compile(r"\d+\.\d+")
_DEBIAN: Final = re.compile(r"\bDebian (\d\S+)")


@dataclass(frozen=True)
class Kernel:
    """A kernel image and its modules.

    :param name: as the user called it: ``6.1``, ``newest``, a path.
    :param release: what ``uname -r`` says on it.
    :param version: the upstream version that it was made from, such as ``6.1.192``.
    :param modules: the directory ``lib/modules/RELEASE``.
    """

    name: str
    release: str
    version: str
    vmlinuz: Path
    modules: Path

    @property
    def series(self) -> str:
        """The first two numbers of the version, such as ``6.1``."""
        return series(self.version)


def series(version: str) -> str:
    """Return the first two numbers of a version: ``6.1`` of ``6.1.192-2``."""
    found = _SERIES.match(version)
    return found.group() if found else version


def upstream(debian_version: str) -> str:
    """Return the upstream part of a Debian version: ``6.1.192`` of ``6.1.192-2~deb11u1`` (deb-version(7))."""
    return debian_version.rpartition("-")[0] or debian_version


def order(version: str) -> tuple[object, ...]:
    """Return a key by which Debian's versions sort as dpkg sorts them (deb-version(7), without epochs).

    Parts without digits and numbers take turns. In the former a tilde sorts before the end, the end before letters,
    and letters before everything else.
    """
    above, _dash, revision = version.rpartition("-") if "-" in version else (version, "", "0")
    return (*_order_of_part(above), (), *_order_of_part(revision))


def _order_of_part(text: str) -> tuple[object, ...]:
    words = _NUMBERS.split(text)
    numbers = [int(number) for number in _NUMBERS.findall(text)] + [0]
    return tuple(((*map(_rank, word), 0), number) for word, number in zip(words, numbers, strict=True))


def _rank(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + 256


def fingerprint(tree: Path) -> str:
    """Return a hash of a tree's files by name, size and time: modules are too many to be read every time."""
    digest = hashlib.sha256()
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        status = path.stat()
        digest.update(f"{path.relative_to(tree)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def read_banner(vmlinuz: Path) -> tuple[str, str]:
    """Read release and version out of an x86 kernel image.

    Documentation/arch/x86/boot.rst: "HdrS" at 0x202, and at 0x20e the place of the version string, less 0x200. Debian
    puts its own version into it; elsewhere the release begins with the upstream version.

    :raises InputError: it is no such image, or cannot be read.
    """
    try:
        with vmlinuz.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=vmlinuz) from None
    if head[0x202:0x206] != b"HdrS":
        raise InputError("no x86 kernel image (bzImage)", source=vmlinuz)
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    banner = head[start : head.find(b"\0", start)].decode("ascii", errors="replace")
    release = banner.split(" ", 1)[0]
    found = _DEBIAN.search(banner)
    return release, upstream(found.group(1)) if found else release.partition("-")[0]
