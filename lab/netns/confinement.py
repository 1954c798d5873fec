# SPDX-License-Identifier: MIT
"""The inside of :mod:`lab.netns.confined`: makes its surroundings small, and becomes the program.

It runs in a mount and a PID namespace of its own already, and in the host's network namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Final

from lab.netns import mounts

#: What the program sees of what is its own.
OWN: Final = Path("/run/lab")
BIN: Final = OWN / "bin"

#: The exit code of a failure before the program began.
NOT_BEGUN: Final = 125

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")

# One for all namespaces of a machine, and before Linux 5.12 writable in each of them.
_OF_MACHINE: Final = tuple(
    f"/proc/sys/net/{name}"
    for name in (
        "nf_conntrack_max",
        "netfilter/nf_conntrack_max",
        "netfilter/nf_conntrack_buckets",
        "netfilter/nf_conntrack_expect_max",
    )
)

# include/uapi/linux/capability.h: DAC_OVERRIDE, DAC_READ_SEARCH, NET_BIND_SERVICE, NET_ADMIN, NET_RAW. Not among them:
# SYS_MODULE, SYS_ADMIN (other namespaces), SYS_RAWIO, SYS_PTRACE, MKNOD.
_KEPT: Final = frozenset((1, 2, 10, 12, 13))
_PR_CAPBSET_READ: Final = 23  # include/uapi/linux/prctl.h
_PR_CAPBSET_DROP: Final = 24


def main() -> None:
    """Confine this process, and become the program of its order."""
    order = json.loads(sys.argv[1])
    command, environment = order["command"], order["environment"]
    try:
        place = OWN / "program" / Path(command[0]).name
        _mount(command[0], place, order["files"], order["links"])
        _drop_capabilities()
        os.execve(place, command, environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        print(f"{error.filename or command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_BEGUN)


def _mount(program: str, place: Path, files: dict[str, str], links: dict[str, str]) -> None:
    """Have all file systems read-only, but for a fresh /run and the network namespace's own sysctls.

    :param place: where the program is to be found then, for it may be below the /run of the machine.
    """
    opened = os.open(program, os.O_PATH)
    mounts.set_read_only("/", recursive=True)
    flags = mounts.NO_SUID | mounts.NO_DEVICES
    mounts.mount("lab", "/run", flags, "tmpfs")  # and so sockets of the machine are not to be found
    BIN.mkdir(parents=True)
    for name, target in links.items():
        (BIN / name).symlink_to(target)
    for name, text in files.items():
        (OWN / name).write_text(text)
    place.parent.mkdir()
    place.touch()
    mounts.mount(f"/proc/self/fd/{opened}", place, mounts.BIND)
    os.close(opened)
    _devices()
    fresh = True
    try:
        mounts.mount("proc", "/proc", flags | mounts.NO_EXEC, "proc")
    except PermissionError:  # in some containers an ordinary user may not; then it is the machine's, and read-only
        fresh = False
    mounts.mount("/proc/sys/net", "/proc/sys/net", mounts.BIND)
    if fresh:
        mounts.set_read_only("/proc")
    else:
        mounts.set_read_only("/proc/sys/net", False)
    for path in _OF_MACHINE:
        with contextlib.suppress(FileNotFoundError):
            mounts.mount(path, path, mounts.BIND)
            mounts.set_read_only(path)


def _devices() -> None:
    """Have no devices but those that are nobody's: root may write to disks whatever is mounted read-only."""
    own = OWN / "dev"
    own.mkdir()
    for name in _DEVICES:
        (own / name).touch()
        mounts.mount(f"/dev/{name}", own / name, mounts.BIND)
    (own / "fd").symlink_to("/proc/self/fd")
    mounts.mount(own, "/dev", mounts.BIND | mounts.RECURSIVE)


def _drop_capabilities() -> None:
    """Leave what the program may ever have: what is dropped from the bounding set is gone with execve(2)."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    number = 0
    while prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in _KEPT and prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            code = ctypes.get_errno()
            raise OSError(code, f"a capability cannot be dropped: {os.strerror(code)}")
        number += 1


if __name__ == "__main__":
    main()
