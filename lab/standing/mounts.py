# SPDX-License-Identifier: MIT
"""mount(2) and umount2(2): for the names of namespaces, and for a host's own ``/sys``."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# include/uapi/linux/mount.h
READ_ONLY: Final = 1
BIND: Final = 0x1000
RECURSIVE: Final = 0x4000
SLAVE: Final = 0x8_0000
SHARED: Final = 0x10_0000

DETACH: Final = 2  # include/linux/fs.h, MNT_DETACH

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | Path, target: str | Path, flags: int, kind: str = "none") -> None:
    """Mount ``source`` on ``target``; with SHARED or SLAVE, change how the mount there is passed on.

    :param kind: of file system.

    :raises OSError: EINVAL where a change is asked of what is no mount.
    """
    names = (os.fsencode(source), os.fsencode(target), kind.encode())
    _check(_libc.mount(*names, ctypes.c_ulong(flags), None), str(target))


def unmount(target: str | Path, flags: int = 0) -> None:
    """Remove the topmost mount from ``target``.

    :raises OSError: EINVAL for what is no mount, EBUSY for one in use (without DETACH).
    """
    _check(_libc.umount2(os.fsencode(target), flags), str(target))


def _check(result: int, place: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), place)
