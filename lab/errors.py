# SPDX-License-Identifier: MIT
"""The errors that a user can cause or cure; everything else is a bug and keeps its traceback.

What the machine itself says of want comes as OSError from anywhere: here it is told from the rest.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Final, Self

#: The exit code of a command that was ended by Ctrl-C, as a shell tells it.
INTERRUPTED: Final = 128 + signal.SIGINT

#: The exit code of a command whose reader has gone, as a shell tells it of programs that SIGPIPE ends.
READER_GONE: Final = 128 + signal.SIGPIPE

#: The exit code of a command that has no answer: 0 and 1 are answers.
NO_ANSWER: Final = 2


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Suggest the known word that was probably meant, or list them all where they are few."""
    words = sorted(known)
    return misspelt(word, words) or (f"known: {', '.join(words)}" if 0 < len(words) <= 20 else None)


def misspelt(word: str, known: Iterable[str]) -> str | None:
    """Suggest the known word that was probably meant; None where none is like it."""
    import difflib

    words = {one.casefold(): str(one) for one in sorted(known, reverse=True)}
    close = difflib.get_close_matches(word[:80].casefold(), list(words), n=1)
    return f"did you mean {words[close[0]]!r}?" if close else None


class LabError(Exception):
    """Base of every error that the command prints as one line instead of a traceback.

    :cvar exit_code: what the command exits with.
    """

    exit_code: ClassVar[int] = NO_ANSWER

    def __reduce__(self) -> tuple[Callable[..., LabError], tuple[object, ...]]:
        """Return how another process makes the same: what an error was made of is not what it says."""
        return _made_again, (type(self), self.args, vars(self))


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

    def said_in(self, place: str) -> InputError:
        """Return this with the option, word or key first in which it was said."""
        return InputError(f"{place}: {self.message}", source=self.source, line=self.line, cure=self.cure)


class ServiceError(InputError):
    """A Service that was named cannot be asked: there is none of this name, or it has no such port or endpoint."""


def _made_again(kind: type[LabError], said: tuple[object, ...], fields: dict[str, object]) -> LabError:
    error = kind.__new__(kind, *said)
    vars(error).update(fields)
    return error


class UnknownNameError(InputError):
    """A name that nothing of its kind has.

    :param kind: what should have it: ``case``, ``fix`` or ``topology``.
    :param known: the names that there are.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, message: str = "", source: str | Path | None = None
    ) -> None:
        self.kind, self.name = kind, name
        cure = nearest(name.replace("_", "-"), known) or "see `lab list`"
        super().__init__(message or f"there is no {kind} {name!r}", source=source, cure=cure)


class LabWarning(UserWarning):
    """What whoever uses the lab has to know, and that stops nothing."""


class InputWarning(LabWarning):
    """A part of what was given is not used, or not as it may be meant: look at the named place. The rest is used."""


class HeldUpWarning(LabWarning):
    """The machine kept a trial from running for so long that it is tried again; nothing is wrong with the trial."""


def warn(words: str, kind: type[LabWarning] = InputWarning) -> None:
    """Warn whoever uses the lab, first of all that a part of what was given is not used.

    The command tells it on stderr, pytest in its summary.
    """
    import warnings

    warnings.warn(words, kind, stacklevel=2)


def tell_warnings() -> None:
    """Print each warning of the lab's as one line on stderr, as the command's errors are."""
    import warnings

    formatted = warnings.formatwarning

    def line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, LabWarning):
            return f"lab: {message}\n"
        return formatted(message, category, filename, lineno, line)

    warnings.formatwarning = line
    warnings.simplefilter("default", LabWarning)


class MissingError(LabError):
    """The machine lacks something the lab needs: a program, a kernel option, a permission.

    :param what: the thing that is missing, named as its users name it.
    :param cure: the package, kernel option or command that brings it.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.what = what
        self.cure = cure
        super().__init__(f"{what}: {cure}")


class MachineError(LabError):
    """The machine ran out of something, or keeps something from the lab: no trial's result, whatever was being tried.

    :param what: what could not be done, in the system's own words.
    :param cure: what helps; empty where that is plain.
    """

    def __init__(self, what: str, cure: str = "") -> None:
        self.what = what
        self.cure = cure
        super().__init__(f"{what} ({cure})" if cure else what)

    @staticmethod
    def of(error: OSError) -> MachineError | None:
        """Return what an error of the system says of the machine; None where it may be about something else."""
        place, words = error.filename or "", error.strerror or str(error)
        code = error.errno or 0
        cure = _CURES.get(code)
        if cure is None and not _is_procfs(str(place)):
            return None
        kind = MachineError if cure is None or code in _LASTING else ExhaustedError
        return kind(
            f"{place}: {words}" if place else words, cure() if cure else "is /proc mounted, for this process too?"
        )


class ExhaustedError(MachineError):
    """A limit of this process was reached, or something is used up: it says nothing of what the machine can do."""

    @classmethod
    def within(cls, words: str) -> Self | None:
        """Return the system's word on descriptors or memory that a program or library has passed on; None if none."""
        code = next((code for code in _SCARCE if os.strerror(code) in words), None)
        return None if code is None else cls(words, _CURES[code]())


class OutputError(MachineError):
    """What was found out cannot be written to where it was to go.

    :ivar place: where; ``reason``: why not.
    """

    def __init__(self, place: str, error: OSError) -> None:
        self.place, self.reason = place, str(error.strerror or error)
        cure = _ELSEWHERE if error.errno in _FULL else _CURES.get(error.errno or 0, str)()
        super().__init__(f"cannot write {place}: {self.reason}", cure)


class ReaderGoneError(LabError):
    """Whoever read the output has enough: nobody is to blame, and there is nobody to tell."""

    exit_code = READER_GONE


def told(error: OSError) -> MachineError:
    """Return what there is to tell a user of an error of the system that nobody on its way knew better."""
    place = f"{error.filename}: " if error.filename else ""
    return MachineError.of(error) or MachineError(f"{place}{error.strerror or error}")


def raise_if_of_machine(error: OSError) -> None:
    """Raise the machine's want of descriptors or memory, which is no error of a connection.

    :raises MachineError: it is one of these.
    """
    if error.errno in _SCARCE and (found := MachineError.of(error)):
        raise found from error


def raise_if_exhausted(error: LabError | OSError) -> None:
    """Raise what a limit, or something that is used up, has caused: it is no lack of the machine.

    :raises ExhaustedError: it is one of these.
    """
    found = MachineError.of(error) if isinstance(error, OSError) else error
    if not isinstance(found, MachineError) and found is not None:
        found = ExhaustedError.within(str(found))
    if isinstance(found, ExhaustedError):
        raise found from error


def _limit(kind: str, allows: str, cure: str) -> str:
    import resource

    allowed, _hard = resource.getrlimit(getattr(resource, kind))
    return f"this process may {allows.format(allowed)}: {cure}"


def _is_procfs(place: str) -> bool:
    """Return whether a file is the kernel's account of this process, which is missing only where /proc is."""
    return place.startswith(("/proc/self/", "/proc/thread-self/"))


_CURES: Final[dict[int, Callable[[], str]]] = {
    errno.EMFILE: lambda: _limit("RLIMIT_NOFILE", "have {} files open, and needs more", "`ulimit -n 1024`"),
    errno.ENFILE: lambda: "the sysctl fs.file-max: how many files the whole machine may have open",
    errno.ENOMEM: lambda: "`ulimit -v`, a container's limit, or the machine's memory",
    errno.EAGAIN: lambda: _limit("RLIMIT_NPROC", "start {} processes and threads", "`ulimit -u` raises it"),
    errno.ENOSPC: lambda: "",
    errno.EDQUOT: lambda: "",
    errno.EFBIG: lambda: _limit("RLIMIT_FSIZE", "write {} bytes to a file", "`ulimit -f` raises it"),
    errno.EROFS: lambda: "in a container: one that may write it, such as a privileged one",
}

#: A disk that is full, or a user's share of it; said of a file, for namespaces run out by the same number.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE: Final = "make room there, or have it written elsewhere"

#: What can be said to be wanting by whoever opens, connects or loads something.
_SCARCE: Final = (errno.ENFILE, errno.EMFILE, errno.ENOMEM)  # the words of EMFILE begin those of ENFILE

#: Of the cures, those of what is no want: the machine is so.
_LASTING: Final = frozenset({errno.EROFS})
