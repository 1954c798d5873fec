# SPDX-License-Identifier: MIT
"""QEMU's process: started, listened to, and ended with whoever started it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.netns.running import dying_with_us

#: Seconds of silence after which a guest hangs. Those in which it waits for a processor of the machine do not count: a
#: busy one lets it boot for minutes without a word.
SILENCE: Final = 60.0
#: The same where its time is over anyway and the question is only why.
_SHORT_SILENCE: Final = 15.0

#: Seconds from QEMU's last word to its end.
_PATIENCE: Final = 10.0

#: How the words begin that :func:`out_of_time` returns.
OUT_OF_TIME: Final = "out of time"

_CONSOLE_SIZE: Final = 1 << 16


@dataclass(frozen=True)
class End:
    """How a guest ended.

    :param lines: of its console.
    :param stopped: why the machine ended it, or empty.
    :param exit_code: QEMU's.
    """

    lines: Sequence[str]
    stopped: str
    exit_code: int


def out_of_time(limit: float) -> str:
    """Return how a guest ended that was not finished within its limit, in seconds."""
    return f"{OUT_OF_TIME}: not finished after {limit:.0f} s"


@dataclass(frozen=True)
class _Heard:
    """When a process was last heard of, and how long each of its threads had waited for a processor by then."""

    process: int
    at: float
    delays: Mapping[str, float]

    @classmethod
    def now(cls, process: int, at: float) -> _Heard:
        return cls(process, at, _delays(process))

    def silence(self, now: float) -> float:
        """Return the seconds since then in which no thread waited for a processor."""
        return max(0.0, now - self.at - self.waited())

    def waited(self) -> float:
        """Return how long a thread has waited for a processor since then: the one that waited longest."""
        return max((delay - self.delays.get(one, 0.0) for one, delay in _delays(self.process).items()), default=0.0)


def _delays(process: int) -> dict[str, float]:
    """Return how long each thread of a process has waited for a processor, in seconds: its ``run_delay``.

    Of a kernel that does not count it, nothing. Source: Documentation/scheduler/sched-stats.rst.
    """
    found = {}
    for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread may just have ended
            found[file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return found


async def watch(
    arguments: Sequence[str | Path], keep: Sequence[int], *, limit: float, silence: float | None = None, until: str = ""
) -> End:
    """Start QEMU and read the guest's console to its end, to silence or to the end of its time.

    :param arguments: QEMU's, from its own name on.
    :param keep: descriptors that it inherits.
    :param silence: after how many seconds of it a guest hangs; else :data:`SILENCE`.
    :param until: a text on the console after which the guest is ended.
    :raises LabError: QEMU does not start.
    """
    loop = asyncio.get_running_loop()
    # The thread that starts it is the loop's own, and waits for it.
    process = subprocess.Popen(  # noqa: ASYNC220 - what waits for it is the loop's own
        dying_with_us(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        pass_fds=keep, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    reader = asyncio.StreamReader()
    console = bytearray()
    stopped = ""
    ended = False
    transport = None
    try:
        transport, _protocol = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        heard = _Heard.now(process.pid, loop.time())
        deadline = heard.at + limit
        bound = silence or SILENCE
        while not (until and until.encode() in console):
            left = min(deadline - loop.time(), bound - heard.silence(loop.time()))
            try:
                chunk = await asyncio.wait_for(reader.read(4096), left)
            except TimeoutError:
                stopped = _stopped(heard.silence(loop.time()), bound, limit, is_over=loop.time() >= deadline)
                if stopped:
                    break
                continue
            if not chunk:
                ended = True
                break
            heard = _Heard.now(process.pid, loop.time())
            console += chunk.replace(b"\0", b"").replace(b"\r", b"")
            del console[:-_CONSOLE_SIZE]
    finally:
        if transport is not None:
            transport.close()
        code = _end(process, patience=_PATIENCE if ended else 0.0)
    return End(console.decode(errors="replace").splitlines(), stopped, code)


def _stopped(silence: float, bound: float, limit: float, *, is_over: bool) -> str:
    """Return why a guest is ended that was silent for so many seconds; empty where it is not.

    :param is_over: whether its time is.
    """
    if silence >= min(bound, _SHORT_SILENCE if is_over else bound):
        return f"hung: no sign of life for {silence:.0f} s"
    return out_of_time(limit) if is_over else ""


def _end(process: subprocess.Popen[bytes], *, patience: float) -> int:
    """Wait for a process that has closed its output, or kill it; return its exit code."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
