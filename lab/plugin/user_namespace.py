# SPDX-License-Identifier: MIT
"""Without root: pytest's own process becomes root of a user namespace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lab.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable


def enter() -> None:
    """Become able to make namespaces; the process stays where it is if it may already, or may not at all.

    :raises MissingError: see :func:`lab.netns.userns.enter`.
    """
    import getpass

    from lab.netns import Namespace, RouteSocket, userns
    from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up

    if userns.privileged():
        return
    _try_in_child(userns.enter)
    # Where no variable names the user, getpass (and so tmp_path) goes by the number, and that will be 0.
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"  # as tmp_path calls him
    os.environ.setdefault("LOGNAME", name)
    userns.enter()
    home = Namespace.open("/proc/thread-self/ns/net")
    routes = RouteSocket(home)
    routes.apply([link_up(LOOPBACK_INDEX, "lo")])
    routes.close()
    home.close()


def _try_in_child(try_it: Callable[[], None]) -> None:
    """Enter in a child first: some systems let a process in and take its rights away there, for good."""
    if len(os.listdir("/proc/self/task")) > 1:
        return  # the kernel refuses at once, and nothing has changed
    answer = os.memfd_create("answer")
    try:
        child = os.fork()
        if child == 0:
            try:
                try_it()
            except MissingError as error:
                os.write(answer, f"{error.what}\n{error.cure}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        told = os.pread(answer, 4096, 0).decode()
    finally:
        os.close(answer)
    if told:
        raise MissingError(*told.split("\n", 1))
