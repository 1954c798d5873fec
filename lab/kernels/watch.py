# SPDX-License-Identifier: MIT
"""QEMU's process: started, listened to, and ended with whoever started it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.netns.running import dying_with_us

#: Seconds of silence after which a guest hangs. A busy machine may well let it wait for a few.
SILENCE: Final = 60.0
#: The same where its time is over anyway and the question is only why.
_SHORT_SILENCE: Final = 15.0

#: Seconds from QEMU's last word to its end.
_PATIENCE: Final = 10.0

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


async def watch(arguments: Sequence[str | Path], keep: Sequence[int], *, limit: float, until: str = "") -> End:
    """Start QEMU and read the guest's console to its end, to silence or to the end of its time.

    :param arguments: QEMU's, from its own name on.
    :param keep: descriptors that it inherits.
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
        heard = loop.time()
        deadline = heard + limit
        while not (until and until.encode() in console):
            try:
                chunk = await asyncio.wait_for(reader.read(4096), min(deadline, heard + SILENCE) - loop.time())
            except TimeoutError:
                silence = loop.time() - heard
                stopped = (
                    f"hung: no sign of life for {silence:.0f} s"
                    if silence > _SHORT_SILENCE
                    else f"out of time: not finished after {limit:.0f} s"
                )
                break
            if not chunk:
                ended = True
                break
            heard = loop.time()
            console += chunk.replace(b"\0", b"").replace(b"\r", b"")
            del console[:-_CONSOLE_SIZE]
    finally:
        if transport is not None:
            transport.close()
        code = _end(process, patience=_PATIENCE if ended else 0.0)
    return End(console.decode(errors="replace").splitlines(), stopped, code)


def _end(process: subprocess.Popen[bytes], *, patience: float) -> int:
    """Wait for a process that has closed its output, or kill it; return its exit code."""
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
