"""The errors that a user can cause or cure; everything else is a bug and keeps its traceback."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

#: The exit code of a command that was ended by Ctrl-C, as a shell tells it.
INTERRUPTED: Final = 128 + signal.SIGINT


class LabError(Exception):
    """Base of every error that the command prints as one line instead of a traceback."""


class InputError(LabError):
    """What was given cannot be used: mend the named place and try again (exit code 2).

    :param message: what is wrong, with the path of the offending field where there is one.
    :param source: the file, or ``<stdin>``/``<inline>``.
    :param line: one-based line in ``source``.
    :param cure: what to write instead.
    """

    def __init__(
        self,
        message: str,
        *,
        source: str | Path | None = None,
        line: int | None = None,
        cure: str | None = None,
    ) -> None:
        self.message = message
        self.source = None if source is None else str(source)
        self.line = line
        self.cure = cure
        place = ":".join(str(part) for part in (self.source, line) if part is not None)
        text = f"{place}: {message}" if place else message
        super().__init__(f"{text} ({cure})" if cure else text)


class MissingError(LabError):
    """The machine lacks something the lab needs: a program, a kernel option, a permission.

    :param what: the thing that is missing, named as its users name it.
    :param cure: the package, kernel option or command that brings it.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.what = what
        self.cure = cure
        super().__init__(f"{what}: {cure}")
