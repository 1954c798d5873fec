# SPDX-License-Identifier: MIT
"""Running without root: a user namespace in which the caller is allowed what root is."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from lab.errors import MissingError, raise_if_of_machine
from lab.netns.syscalls import CLONE_NEWNET, CLONE_NEWUSER, unshare

# include/uapi/linux/capability.h: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN
_NEEDED: Final = (1 << 12) | (1 << 13) | (1 << 21)
_NS_GET_USERNS: Final = 0xB701  # include/uapi/linux/nsfs.h


def privileged() -> bool:
    """Report whether this process may make namespaces and raw sockets as it is, and come home from them."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16) & _NEEDED == _NEEDED and _home_is_ours()
    return False


def _home_is_ours() -> bool:
    """Report whether the network namespace belongs to the user namespace that the process is root of.

    It does not after ``unshare --map-root-user`` alone, or in a container that shares the host's network.
    """
    with open("/proc/thread-self/ns/net") as home:
        try:
            os.close(fcntl.ioctl(home, _NS_GET_USERNS))
        except PermissionError:  # ioctl_nsfs(2): its owner is outside
            return False
    return True


def enter() -> None:
    """Become root of a user namespace of one's own, with a network namespace to come home to.

    The caller is mapped to root and to nobody else. The machine's network namespace cannot be entered
    again from inside (user_namespaces(7)), so it cannot be changed either. Call it before any second
    thread exists.

    :raises MissingError: the machine forbids it, or a second thread runs.
    :raises MachineError: there is too little memory.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
    except OSError as error:
        raise_if_of_machine(error)
        raise MissingError("no root and no user namespace", _cure(error.errno or 0)) from None
    Path("/proc/self/setgroups").write_text("deny")
    try:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except PermissionError as error:
        raise MissingError("no root and no user namespace", _cure(error.errno or 0)) from None
    if not privileged():
        # AppArmor on Ubuntu 23.10 and later lets the namespace be made, but takes the capabilities away.
        raise MissingError("no root and no user namespace", _cure(errno.EPERM))


def ensure() -> None:
    """Enter a user namespace if this process is not privileged already.

    :raises MissingError: see :func:`enter`.
    """
    if not privileged():
        enter()


def _cure(code: int) -> str:
    if code == errno.EINVAL:
        return "this process runs threads already; run it as root, or start it as `unshare -Urn COMMAND`"
    if code == errno.ENOSPC:
        return "run it with sudo, or raise the sysctl user.max_user_namespaces"
    for name, allowing in (
        ("kernel.apparmor_restrict_unprivileged_userns", 0),
        ("kernel.unprivileged_userns_clone", 1),
    ):
        path = Path("/proc/sys") / name.replace(".", "/")
        if path.exists() and path.read_text().strip() != str(allowing):
            return f"run it with sudo, or set the sysctl {name}={allowing}"
    return "run it with sudo; this system does not let users make namespaces"
