"""A `/run` of the tests' own, so that labs that stay leave no trace on the machine, whatever goes wrong."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.netns.mounts import RECURSIVE, mount
from lab.netns.syscalls import CLONE_NEWNS, setns, unshare
from lab.standing import commands, record

PRIVATE = 0x4_0000  # MS_PRIVATE, include/uapi/linux/mount.h


def _await_reapers() -> None:
    """Wait for the threads that close what labs had: setns(2) refuses whoever shares its directory with others."""
    for thread in threading.enumerate():
        if thread.name == "reaper":
            thread.join()


@pytest.fixture
def own_run():
    """Move this process into a mount namespace with an empty `/run` for the length of a test."""
    directory = Path.cwd()
    home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    with ExitStack() as stack:
        stack.callback(os.close, home)
        unshare(CLONE_NEWNS)
        stack.callback(os.chdir, directory)  # setns(2) moves to the root of the namespace
        stack.callback(setns, home, CLONE_NEWNS)
        stack.callback(_await_reapers)
        mount("", "/", PRIVATE | RECURSIVE)
        mount("tmpfs", "/run", 0, "tmpfs")
        try:
            yield Path("/run")
        finally:
            for lab in record.labs():
                commands.down(lab)
