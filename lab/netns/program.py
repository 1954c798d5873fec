# SPDX-License-Identifier: MIT
"""Programs inside a namespace: started there, waited for, and their words kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from lab.errors import LabError, MissingError
from lab.netns import packages
from lab.netns.namespace import Namespace

# Where administrators' programs live; an ordinary user's PATH often leaves these out.
EXTRA_PATH: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")


class ProgramError(LabError):
    """A program refused its work: its exit code and its own words."""


def find(name: str) -> str:
    """Return the path of a program.

    :raises MissingError: it is not there; names the package if the lab itself may call it, for a user's own is unknown.
    """
    path = os.environ.get("PATH", os.defpath)
    found = shutil.which(name, path=os.pathsep.join((path, *EXTRA_PATH)))
    if found is None and packages.is_known(name):
        raise MissingError(f"{name} is not installed", packages.cure(name))
    if found is None:
        where = "" if "/" in name else " on PATH"
        raise MissingError(f"there is no program {name!r}{where}", "mend its name, or install what brings it")
    return found


class Program:
    """A program that was started in a namespace; :meth:`finish` waits for it.

    Its input is given whole and its output kept in memory, so that it never waits for the lab.
    """

    def __init__(
        self,
        namespace: Namespace,
        command: Sequence[str],
        *,
        text: str = "",
        environment: Mapping[str, str] | None = None,
        keep: Sequence[int] = (),
    ) -> None:
        self.command = list(command)
        self._output = os.memfd_create("output")
        given = os.memfd_create("input")
        try:
            with open(given, "wb", closefd=False) as stream:
                stream.write(text.encode())
            os.lseek(given, 0, os.SEEK_SET)
            with namespace.entered():
                self._process = subprocess.Popen(
                    [find(command[0]), *command[1:]],
                    stdin=given,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    pass_fds=tuple(keep),
                )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(given)

    def finish(self) -> str:
        """Wait for the end and return what the program printed.

        :raises ProgramError: its exit code was not 0.
        """
        try:
            code = self._process.wait()
            with open(self._output, "rb", closefd=False) as stream:
                stream.seek(0)
                printed = stream.read().decode(errors="replace")
        finally:
            os.close(self._output)
        if code != 0:
            raise ProgramError(f"{' '.join(self.command)} ended with exit code {code}: {printed.strip()}")
        return printed
