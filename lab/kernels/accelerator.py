# SPDX-License-Identifier: MIT
"""Which accelerator QEMU can use here: KVM where a guest boots on it, else its own emulation (TCG).

That ``/dev/kvm`` opens says little: on some nested machines a virtual machine can be made, and no kernel boots on it.
So one is booted on trial, and what came of it holds until the machine itself is booted again.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import LabError
from lab.kernels.watch import watch
from lab.netns.program import find

if TYPE_CHECKING:
    from lab.kernels.image import Image

KVM: Final = "kvm"
TCG: Final = "tcg"

# Seconds of silence, and in all: where KVM works, a second of a processor will do, but a busy machine may have none.
_SILENCE: Final = 15.0
_TRIAL: Final = 300.0
_GREETING: Final = "lab: guest: there is no disk root"


def qemu(accelerator: str, memory: int, cpus: int) -> list[str]:
    """Return QEMU's command for a bare machine, with its first serial port on standard output.

    :param memory: MiB.
    """
    # QEMU 7.2's own cmpxchg16b is wrong, so its processor must not offer it.
    chosen = ["-accel", KVM, "-cpu", "host"] if accelerator == KVM else [
        "-accel", "tcg,thread=multi", "-cpu", "max,-cx16",
    ]  # fmt: skip
    return [
        find("qemu-system-x86_64"), *chosen, "-m", str(memory), "-smp", str(cpus), "-nodefaults", "-no-user-config",
        "-display", "none", "-nic", "none", "-no-reboot",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
    ]  # fmt: skip


async def choose(image: Image) -> str:
    """Return ``kvm`` where a guest boots on it, else ``tcg``."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    cache = image.initrd.parent
    identity = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = cache / f"accelerator-{identity}"
    if known.exists():
        return known.read_text()
    chosen = KVM if await _boots(image) else TCG
    for old in cache.glob("accelerator-*"):
        old.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as file:
        file.write(chosen)
    Path(file.name).rename(known)
    return chosen


async def _boots(image: Image) -> bool:
    """Boot the initrd without the disks that it looks for; it says so, and that is answer enough."""
    arguments: list[str | Path] = [
        *qemu(KVM, 256, 1),
        "-kernel", image.vmlinuz, "-initrd", image.initrd, "-append", "console=ttyS0 quiet panic=-1",
    ]  # fmt: skip
    try:
        end = await watch(arguments, (), limit=_TRIAL, silence=_SILENCE, until=_GREETING)
    except LabError:
        return False
    return any(_GREETING in line for line in end.lines)
