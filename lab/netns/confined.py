# SPDX-License-Identifier: MIT
"""A program that takes a namespace for its own node: it writes rules and sysctls there, and touches nothing else.

It is in a host's network namespace, with a mount, PID, IPC and UTS namespace of its own. All file systems are
read-only but a fresh ``/run`` (and so iptables' lock is its own), of ``/proc/sys`` what belongs to the network
namespace is writable and nothing else, and of root's capabilities it has those over its network: it cannot load
modules, mount, enter another namespace or open a disk. It ends with the thread that started it, and so with the lab.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.netns.confinement import BIN, OWN
from lab.netns.namespace import Namespace
from lab.netns.program import EXTRA_PATH, find
from lab.netns.running import dying_with_us

__all__ = ["OWN", "ConfinedProgram"]

_NAMESPACES = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL")


class ConfinedProgram:
    """A program in a namespace, confined, from when it is made until it ends or :meth:`close`.

    :param files: what to write for it into the directory :data:`OWN`, which nobody else has.
    :param links: what it is to find on its PATH under which name, before all others.
    :raises MissingError: unshare or setpriv is not installed.
    :raises OSError: it cannot be started.
    """

    slow_to_close = True

    def __init__(
        self,
        namespace: Namespace,
        command: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
    ) -> None:
        self._output = os.memfd_create("output")
        path = os.pathsep.join((str(BIN), os.environ.get("PATH", os.defpath), *EXTRA_PATH))
        order = {
            "command": [*command],
            "environment": {"PATH": path, "HOME": str(OWN), "TMPDIR": str(OWN), "LC_ALL": "C"},
            "files": dict(files or {}),
            "links": dict(links or {}),
        }
        inside = (sys.executable, "-P", "-m", "lab.netns.confinement", json.dumps(order))
        find(_NAMESPACES[0])
        try:
            with namespace.entered():
                self._process = subprocess.Popen(
                    dying_with_us((*_NAMESPACES, *inside)),
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    cwd="/",
                )
        except BaseException:
            os.close(self._output)
            raise
        self._end = os.pidfd_open(self._process.pid)

    def ends_within(self, seconds: float) -> bool:
        """Wait so long for its end, and report whether it came."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    @property
    def exit_code(self) -> int | None:
        """Its exit code; a signal's number, negative, where that ended it; None while it runs."""
        return self._process.poll()

    @property
    def words(self) -> str:
        """What it has printed so far."""
        return os.pread(self._output, os.fstat(self._output).st_size, 0).decode(errors="replace")

    @property
    def is_idle(self) -> bool:
        """Whether at this moment it waits for something from outside: none of its threads runs, and it has no child."""
        inner = self._inner()
        if inner is None:
            return False
        try:
            tasks = [Path(f"/proc/{inner}/task", task) for task in os.listdir(f"/proc/{inner}/task")]
            states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks]
            children = [(task / "children").read_text() for task in tasks]
        except (FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile
            return False
        return set(states) == {"S"} and not any(children)

    def _inner(self) -> int | None:
        """Return the number of the program's own process, as the machine counts."""
        outer = self._process.pid
        with suppress(OSError):
            found = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
            return int(found[0]) if found else None
        return None

    def close(self) -> None:
        """End it, and whatever it has started; when this returns they are gone."""
        if self._process.poll() is None:
            inner = self._inner()
            # The first process of its namespace takes all others along; unshare ends when that is over.
            with suppress(ProcessLookupError):
                os.kill(inner or self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._end)
        os.close(self._output)
