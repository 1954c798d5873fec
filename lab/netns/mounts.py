# SPDX-License-Identifier: MIT
"""mount(2), umount2(2), mount_setattr(2): names of namespaces, a host's own ``/sys``, programs that are confined."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# include/uapi/linux/mount.h
READ_ONLY: Final = 1
NO_SUID: Final = 2
NO_DEVICES: Final = 4
NO_EXEC: Final = 8
BIND: Final = 0x1000
RECURSIVE: Final = 0x4000
SLAVE: Final = 0x8_0000
SHARED: Final = 0x10_0000

DETACH: Final = 2  # include/linux/fs.h, MNT_DETACH

_MOUNT_SETATTR: Final = 442  # of every architecture (since Linux 5.12)
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000  # include/uapi/linux/fcntl.h
_ATTR_RDONLY: Final = 1  # include/uapi/linux/mount.h, MOUNT_ATTR_RDONLY

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


def set_read_only(target: str | Path, read_only: bool = True, *, recursive: bool = False) -> None:
    """Make a mount read-only, or writable again, and with ``recursive`` whatever is mounted below it.

    :raises OSError: ENOSYS before Linux 5.12, EPERM where a mount is locked.
    """
    wanted = (_ATTR_RDONLY, 0) if read_only else (0, _ATTR_RDONLY)
    attributes = struct.pack("QQQQ", *wanted, 0, 0)  # struct mount_attr: set, clear, propagation, user namespace
    flags = _AT_RECURSIVE if recursive else 0
    name, size = ctypes.c_char_p(os.fsencode(target)), ctypes.c_size_t(len(attributes))
    number, where = ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(_AT_FDCWD)
    _check(_libc.syscall(number, where, name, ctypes.c_uint(flags), attributes, size), str(target))


def _check(result: int, place: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), place)
