# SPDX-License-Identifier: MIT
"""A guest: one virtual machine, booted for one command, and gone with it.

The guest has no network, and of the machine's disks it sees read-only images and two unnamed files: the command, and
the place for its results. Time is the machine's, since a guest's clock drifts. A NUL byte a second on the console says
that the guest lives; without any, it hangs.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from lab.errors import LabError
from lab.kernels import accelerator as acceleration
from lab.kernels.image import Image
from lab.kernels.kernel import Kernel
from lab.kernels.programs import last_words
from lab.kernels.watch import OUT_OF_TIME, End, watch
from lab.netns import interrupt

_RESULTS_SIZE: Final = 1 << 30  # of a file with holes: what is not written costs nothing
_CONSOLE_LINES: Final = 60

_PANIC: Final = re.compile(r"Kernel panic - not syncing: (.*)")
# mm/oom_kill.c; a control group's own shortage begins with "Memory cgroup out of memory".
_OUT_OF_MEMORY: Final = re.compile(
    r"(?<!Memory cgroup )\bOut of memory: (Killed process \d+ \([^)]*\)|.*)|deadlocked on memory"
)
_OWN_WORDS: Final = re.compile(r"lab: guest: (.*)")

#: ``oops=panic`` so that no test runs on in a broken kernel; ``no_timer_check`` since emulated timers may be late.
_KERNEL_ARGUMENTS: Final = "console=ttyS0 quiet panic=-1 oops=panic no_timer_check"


@dataclass(frozen=True)
class GuestRun:
    """What became of a command in a guest.

    :param exit_code: the command's; None where it did not end.
    :param files: what it left in the directory ``LAB_RESULTS``, by relative path.
    :param output: what it printed, standard output and error, as far as it came.
    :param console: the last lines of the guest's console.
    :param failure: empty; or what happened to the guest, in a line that begins with ``hung``, ``panicked``, ``out of
        memory``, ``out of time`` or ``ended``.
    :param seconds: from start to end, on the machine's clock.
    """

    exit_code: int | None
    files: Mapping[str, bytes]
    output: str
    console: str
    failure: str
    seconds: float

    def with_cure(self, option: str) -> str:
        """Return its failure, with the option that gives a guest more time where that is what it lacked."""
        return f"{self.failure}; {option} gives it more" if self.failure.startswith(OUT_OF_TIME) else self.failure


async def run_in_guest(
    kernel: Kernel,
    command: Sequence[str],
    *,
    image: Image,
    limit: float,
    memory: int = 512,
    cpus: int = 1,
    accelerator: str | None = None,
) -> GuestRun:
    """Boot a guest, run a command there as root from the project's directory, and bring back what it left.

    The guest ends with its command, with the task that awaits it, and with this process, however that ends.

    :param command: program and arguments; ``lab``, ``pytest`` and ``python3`` are on its ``PATH``.
    :param limit: seconds from start to end.
    :param memory: MiB.
    :param accelerator: QEMU's; without one ``kvm`` where it works and ``tcg`` where not.
    :raises LabError: QEMU does not start.
    :raises MissingError: a program is missing.
    """
    chosen = accelerator or await acceleration.choose(image)
    with contextlib.ExitStack() as stack:
        script = stack.enter_context(tempfile.TemporaryFile())
        results = stack.enter_context(tempfile.TemporaryFile())
        output = stack.enter_context(tempfile.TemporaryFile())
        # A disk consists of sectors, and a shell takes empty lines.
        text = f"exec {shlex.join(command)}\n".encode()
        script.write(text + b"\n" * (-len(text) % 512))
        script.flush()
        results.truncate(_RESULTS_SIZE)
        arguments: list[str | Path] = [
            *acceleration.qemu(chosen, memory, cpus),
            "-kernel", image.vmlinuz, "-initrd", image.initrd, "-append", _KERNEL_ARGUMENTS,
            "-chardev", f"file,id=output,path={_path(output)}", "-serial", "chardev:output",
            *(argument for name, file in image.disks.items() for argument in _disk(name, str(file), read_only=True)),
            *_disk("command", _path(script), read_only=True),
            *_disk("results", _path(results), read_only=False),
        ]  # fmt: skip
        started = time.monotonic()
        end = await watch(arguments, [file.fileno() for file in (script, results, output)], limit=limit)
        seconds = time.monotonic() - started
        output.seek(0)
        code, files = _unpack(results)
        printed = output.read().decode(errors="replace")
        console = "\n".join(end.lines[-_CONSOLE_LINES:])
        return GuestRun(code, files, printed, console, _failure(end, code, kernel), seconds)


async def run_until_interrupted(
    kernel: Kernel, command: Sequence[str], *, image: Image, limit: float, memory: int = 512, cpus: int = 1
) -> GuestRun:
    """Do the same as :func:`run_in_guest`, and end the guest on Ctrl-C.

    :raises asyncio.CancelledError: for Ctrl-C.
    """
    with interrupt.cancels_task():
        return await run_in_guest(kernel, command, image=image, limit=limit, memory=memory, cpus=cpus)


def _path(file: IO[bytes]) -> str:
    # QEMU inherits the descriptor. The file has no name: there is nothing to remove, whoever dies first.
    return f"/proc/self/fd/{file.fileno()}"


def _disk(name: str, path: str, *, read_only: bool) -> Iterator[str]:
    quoted = path.replace(",", ",,")
    access = "on" if read_only else "off"
    yield from ("-drive", f"id={name},file={quoted},format=raw,if=none,read-only={access},cache=unsafe")
    yield from ("-device", f"virtio-blk-pci,drive={name},serial={name}")


def _failure(end: End, exit_code: int | None, kernel: Kernel) -> str:
    text = "\n".join(end.lines)
    shortage, panic = _OUT_OF_MEMORY.search(text), _PANIC.search(text)
    if shortage:
        return f"out of memory: {shortage.group(1) or 'nothing was left to kill'}"
    if panic:
        return f"panicked: {panic.group(1)}"
    if end.stopped:
        return end.stopped
    if exit_code is not None:
        return ""
    if end.exit_code > 0:
        raise LabError(f"QEMU does not start a guest with {kernel.name}: {last_words(text)}")
    own = _OWN_WORDS.search(text)
    return f"ended: {own.group(1) if own else 'the guest stopped before its command did'}"


def _unpack(results: IO[bytes]) -> tuple[int | None, dict[str, bytes]]:
    """Read the tar file that the guest wrote last of all; without one the command did not end."""
    results.seek(0)
    files = {}
    code = None
    try:
        with tarfile.open(fileobj=results, mode="r:") as archive:
            for member in archive:
                data = archive.extractfile(member) if member.isfile() else None
                if data is None:
                    continue
                if member.name == "./exit-code":
                    code = int(data.read())
                else:
                    files[member.name.removeprefix("./files/")] = data.read()
    except tarfile.ReadError:
        return None, {}
    return code, files
