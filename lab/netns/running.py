# SPDX-License-Identifier: MIT
"""Programs that run beside the lab, and die with it: servers with their workers, and many clients at once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.netns.namespace import Namespace
from lab.netns.program import ProgramError, find

# prctl(2), PR_SET_PDEATHSIG: who sets it has to look whether the parent was gone before.
_WITH_THE_LAB: Final = ("setpriv", "--pdeathsig", "KILL", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')

#: In front of a program that starts others: they go with it, for it is the first process of a PID namespace
#: (pid_namespaces(7)). What it mounts is its own as well.
WITH_ALL_IT_STARTS: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL")


def dying_with_us(command: Sequence[str | Path]) -> list[str | Path]:
    """Return the command of a program that is killed when the thread that starts it ends, and so with this process.

    :raises MissingError: there is no setpriv.
    """
    return [find(_WITH_THE_LAB[0]), *_WITH_THE_LAB[1:], str(os.getpid()), *command]


class RunningProgram:
    """A program in a namespace that ends by itself, with :meth:`close`, or with the thread that made this.

    :param given: its standard input.
    :raises MissingError: it is not installed; names the package that brings it.
    """

    def __init__(self, namespace: Namespace, command: Sequence[str], *, given: bytes = b"") -> None:
        self.command = [find(command[0]), *command[1:]]
        tied = dying_with_us(self.command)
        self._words = bytearray()
        self._output = os.memfd_create("output")
        self._ear, mouth = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(mouth, True)
        source = os.memfd_create("input")
        try:
            with open(source, "wb", closefd=False) as stream:
                stream.write(given)
            os.lseek(source, 0, os.SEEK_SET)
            with namespace.entered():
                self._process = subprocess.Popen(tied, stdin=source, stdout=self._output, stderr=mouth)
        except BaseException:
            os.close(self._output)
            os.close(self._ear)
            raise
        finally:
            os.close(source)
            os.close(mouth)
        self._end = os.pidfd_open(self._process.pid)

    async def says(self, words: str) -> None:
        """Wait until it has said so on its standard error.

        :raises ProgramError: it ended without.
        """
        while words.encode() not in self._words:
            await _readable(self._ear)
            if not self._listen():
                raise ProgramError(f"{self.command[0]} ended: {self.words}")

    def _listen(self) -> bool:
        """Read what it has printed by now; report whether it may print more."""
        try:
            while heard := os.read(self._ear, 65536):
                self._words += heard
        except BlockingIOError:
            return True
        return False

    @property
    def words(self) -> str:
        """What it has said on its standard error so far."""
        self._listen()
        return self._words.decode(errors="replace").strip()

    @property
    def output(self) -> bytes:
        """What it has written to its standard output so far."""
        return os.pread(self._output, os.fstat(self._output).st_size, 0)

    async def ended(self) -> int:
        """Wait for its end and return its exit code; a signal's number, negative, where that ended it."""
        await _readable(self._end)
        return self._process.wait()

    def close(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._ear, self._output, self._end):
            os.close(descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(descriptor, ready)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)
