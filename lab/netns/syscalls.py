# SPDX-License-Identifier: MIT
"""The system calls that Python 3.11 lacks: unshare and setns, which Python 3.12 has in ``os``, and prctl.

One way for all versions is simpler than two.
"""

from __future__ import annotations

import ctypes
import os
import signal
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


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends (prctl(2), PR_SET_PDEATHSIG).

    :param parent: its process, which may have gone before.
    """
    _checked(_libc.prctl(1, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
