# SPDX-License-Identifier: MIT
"""The machine's programs that fetching and booting need."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.errors import LabError, MissingError
from lab.netns import packages
from lab.netns.program import find

#: All that the room needs, to be asked for at once: a second call that names a second package is a nuisance.
ALL: Final = (
    "apt-get", "busybox", "cpio", "depmod", "dpkg-deb", "mksquashfs", "mmdebstrap", "qemu-system-x86_64", "setpriv",
)  # fmt: skip


def require(names: Sequence[str] = ALL) -> None:
    """Check that these programs are there.

    :raises MissingError: names every one that is not, and one command that brings them all.
    """
    missing = []
    for name in names:
        try:
            path = find(name)
        except MissingError:
            missing.append(name)
        else:
            if name == "busybox" and not _is_static(path):
                missing.append(name)
    if missing:
        raise MissingError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed",
            packages.cure(*missing, no_more=True),
        )


def _is_static(path: str) -> bool:
    # Debian's package busybox has a dynamic one under the same name; it names its loader in its first page.
    with Path(path).open("rb") as file:
        return b"/ld-linux" not in file.read(4096)


def call(command: Sequence[str | Path], what: str, *, text: str = "") -> str:
    """Run a program to its end and return what it printed.

    :param what: what it is for, in words that can follow "cannot".
    :raises LabError: it failed; with its last words.
    """
    name, *arguments = command
    done = subprocess.run(
        [find(str(name)), *arguments], input=text, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise LabError(f"cannot {what}: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def last_words(text: str) -> str:
    """Return the last three lines that say something, in one."""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-3:]) or "no word of why"
