# SPDX-License-Identifier: MIT
"""Files that are compressed, by their names when written and by how they begin when read."""

from __future__ import annotations

import gzip
import importlib
import zlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from lab.errors import InputError, MissingError

#: Compresses the bytes of a file.
Pack: TypeAlias = Callable[[bytes], bytes]

_GZIP: Final = b"\x1f\x8b"  # RFC 1952, 2.3.1
_ZSTD: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878, 3.1.1


def packing(name: str) -> Pack:
    """Return what compresses a file of this name: one that ends with ``.gz`` or ``.zst``; others stay as they are.

    :raises MissingError: there is nothing here that does.
    """
    if name.endswith(".gz"):
        return lambda data: gzip.compress(data, mtime=0)
    if name.endswith(".zst"):
        pack: Pack = _zstd(name).ZstdCompressor().compress
        return pack
    return bytes


def unpacked(data: bytes, name: str) -> bytes:
    """Return what was compressed; what was not stays as it is.

    :raises InputError: it is broken.
    :raises MissingError: there is nothing here that reads it.
    """
    try:
        if data.startswith(_GZIP):
            return gzip.decompress(data)
        if data.startswith(_ZSTD):
            return _from_zstd(data, name)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"broken: {error}", source=name) from None
    return data


def _from_zstd(data: bytes, name: str) -> bytes:
    library = _zstd(name)
    reader = library.ZstdDecompressor().decompressobj()
    try:
        whole: bytes = reader.decompress(data)
    except library.ZstdError as error:
        raise InputError(f"broken: {error}", source=name) from None
    if not reader.eof:
        raise InputError("broken: cut short", source=name)
    return whole


def _zstd(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        cure = "pip install zstandard, or name it .gz"
        raise MissingError(f"{name}: zstandard is not installed", cure) from None
