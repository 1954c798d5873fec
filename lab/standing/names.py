# SPDX-License-Identifier: MIT
"""Names of namespaces: files in ``/run/netns`` on which they are mounted (ip-netns(8)).

The directory is prepared as ``ip netns add`` does (iproute2, ip/ipnetns.c): a mount of its own, and shared,
so that a name taken away is gone in every mount namespace. That changes the mount table of the machine; a
note says that it was done here, and whoever takes the last name away undoes it.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import InputError, LabError
from lab.netns import Namespace
from lab.netns.mounts import BIND, DETACH, RECURSIVE, SHARED, mount, unmount

if TYPE_CHECKING:
    from collections.abc import Mapping

DIRECTORY: Final = Path("/run/netns")


def opened(name: str) -> Namespace:
    """Open a namespace by its name.

    :raises LabError: there is none any more.
    """
    try:
        return Namespace.open(DIRECTORY / name)
    except FileNotFoundError:
        raise LabError(f"there is no {DIRECTORY / name}: its name was taken away (`ip netns delete`)") from None


def prepare(note: Path) -> None:
    """Make the directory able to hold names.

    :param note: a file that is written where that took a change of the machine.
    """
    try:
        mount("", DIRECTORY, SHARED | RECURSIVE)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.EINVAL}:
            raise
        # Before the first change: whatever happens now, it will be undone.
        note.write_text("made" if error.errno == errno.ENOENT else "found")
        DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        mount(DIRECTORY, DIRECTORY, BIND | RECURSIVE)
        mount("", DIRECTORY, SHARED | RECURSIVE)


def undo(note: Path) -> None:
    """Undo what :func:`prepare` noted, unless others have put names there since."""
    try:
        made = note.read_text() == "made"
    except FileNotFoundError:
        return
    # EBUSY: somebody is in there; then it is theirs from now on. EINVAL: it never came to the mount.
    with suppress(OSError):
        if not any(DIRECTORY.iterdir()):
            unmount(DIRECTORY)
    if made:
        with suppress(OSError):
            DIRECTORY.rmdir()
    note.unlink()


def give(namespaces: Mapping[str, Namespace]) -> None:
    """Name the namespaces: all of them or none.

    :raises InputError: another namespace has one of the names.
    """
    given: list[str] = []
    try:
        for name, namespace in namespaces.items():
            path = DIRECTORY / name
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
            given.append(name)
            mount(f"/proc/self/fd/{namespace.fileno()}", path, BIND)
    except BaseException as error:
        for name in given:
            take(name)
        if isinstance(error, FileExistsError):
            raise InputError(
                f"{path} exists already",
                cure=f"take another --name, or `ip netns delete {path.name}` where nobody needs it",
            ) from None
        raise


def take(name: str) -> None:
    """Remove a name; it may be gone already. The namespace lives on while anyone is in it."""
    path = DIRECTORY / name
    with suppress(OSError):
        unmount(path, DETACH)
    path.unlink(missing_ok=True)
