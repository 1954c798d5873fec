# SPDX-License-Identifier: MIT
"""The system calls that Python 3.11 lacks: unshare and setns.

Python 3.12 has both in ``os``; one way for all versions is simpler than two.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

CLONE_NEWNS: Final = 0x0002_0000  # include/uapi/linux/sched.h
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move the calling thread into fresh namespaces (unshare(2)).

    :raises OSError: EPERM without the capability, EINVAL for CLONE_NEWUSER with a second thread about.
    """
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace behind ``descriptor`` (setns(2)).

    :raises OSError: EPERM without CAP_SYS_ADMIN over the namespace's owner.
    """
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")
