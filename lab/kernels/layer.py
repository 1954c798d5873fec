# SPDX-License-Identifier: MIT
"""What every layer of an image is made with: a hash of what it is made from, and a compressed file system."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lab.kernels.programs import call


def digest_of(*parts: str | bytes) -> str:
    """Return a hash of what a layer is made from."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def squash(directory: Path, file: Path, *, level: int = 15) -> None:
    """Make a compressed read-only file system out of a directory."""
    call(
        ["mksquashfs", directory, file, "-comp", "zstd", "-Xcompression-level", str(level), "-all-root", "-noappend",
         "-no-progress", "-no-xattrs"],
        f"make {file}",
    )  # fmt: skip
