# SPDX-License-Identifier: MIT
"""A network namespace, held by a descriptor and by nothing else.

It has no name and no process: when the last descriptor, socket and child in it are gone, the kernel
removes it, also after SIGKILL.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from lab.errors import MachineError
from lab.netns.syscalls import CLONE_NEWNET, setns, unshare

# Membership is per thread: /proc/self would name the main thread's namespace.
_CURRENT: Final = "/proc/thread-self/ns/net"
_SYSCTL_ROOT: Final = "/proc/sys/"


def _open_current() -> int:
    return os.open(_CURRENT, os.O_RDONLY | os.O_CLOEXEC)


def _unshare() -> None:
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # unshare(2), of every kind of namespace
            raise MachineError("no more network namespaces", "raise the sysctl user.max_net_namespaces") from None
        raise


class Namespace:
    """One network namespace.

    Sockets opened through :meth:`socket` stay in it, wherever the thread goes afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def create(cls) -> Self:
        """Make a fresh namespace without leaving the calling thread's own for longer than the call.

        :raises MachineError: no more of them may be made.
        :raises OSError: EPERM without CAP_SYS_ADMIN.
        """
        home = _open_current()
        try:
            _unshare()
            try:
                return cls(_open_current())
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the namespace behind ``path``, such as ``/run/netns/NAME``.

        :raises OSError: ENOENT where there is none.
        """
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the descriptor, for messages that name a namespace by it."""
        return self._descriptor

    @property
    def inode(self) -> int:
        """The number that ``ls -l /proc/PID/ns/net`` shows."""
        return os.fstat(self._descriptor).st_ino

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the namespace for the length of the block (5 us there and back).

        Programs started inside stay inside.
        """
        home = _open_current()
        try:
            setns(self._descriptor, CLONE_NEWNET)
            try:
                yield
            finally:
                setns(home, CLONE_NEWNET)
        finally:
            os.close(home)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a non-blocking socket that lives in the namespace."""
        with self.entered():
            return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)

    def sysctl(self, key: str) -> str:
        """Read one sysctl of the namespace, named with slashes below ``/proc/sys``.

        :raises OSError: ENOENT where this kernel has none of that name.
        """
        with self.entered():
            return Path(_SYSCTL_ROOT + key).read_text().strip()

    def set_sysctls(self, values: dict[str, str | int]) -> None:
        """Write sysctls of the namespace. ``/proc/sys/net`` follows the thread, so the machine's own stay.

        :raises OSError: ENOENT for an unknown key, EACCES for one that only the initial namespace may write.
        """
        with self.entered():
            for key, value in values.items():
                descriptor = os.open(_SYSCTL_ROOT + key, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(descriptor, str(value).encode())
                finally:
                    os.close(descriptor)

    def close(self) -> None:
        """Close the descriptor of the namespace."""
        os.close(self._descriptor)
