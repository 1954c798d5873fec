# SPDX-License-Identifier: MIT
"""Files of results: refused before the trials, and after them either whole or what they were."""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from lab.cli.output import STDOUT
from lab.cli.packed import Pack, packing
from lab.errors import InputError, OutputError

if TYPE_CHECKING:
    from lab.results.matrix import Matrix
    from lab.results.reach import ReachReport
    from lab.results.result import Report

Result = TypeVar("Result", "Report", "Matrix", "ReachReport")

# What is below these is the kernel's: nothing is put in its place.
_DEVICES: Final = (Path("/dev"), Path("/proc"))

# No file can be made in the directory, or none moved over what is there; the file itself may be open to all.
_IN_PLACE: Final = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}


@dataclass(frozen=True)
class Output:
    """Where results in one form go.

    :param place: as the user named it.
    :param target: the file to be written, or what takes bytes as they come: a pipe, a device, standard output.
    :param pack: compresses them as the file's name says.
    """

    form: str
    place: str
    target: Path | BinaryIO
    pack: Pack

    @property
    def on_stdout(self) -> bool:
        """Whether it is standard output."""
        return self.place == STDOUT

    def write(self, data: bytes) -> None:
        """Write it.

        :raises OutputError: that fails.
        """
        data = self.pack(data)
        try:
            if not isinstance(self.target, Path):
                self.target.write(data)
                self.target.flush()
                return
            put(self.target, data)
        except OSError as error:
            raise OutputError(self.place, error) from None


class Outputs:
    """The files that somebody wants results in. They are looked at now, so that a mistyped path costs no trial.

    :param packets: whether all packets are in the JSON.
    :param paths: by the form; - for standard output, None for what nobody wants.
    :raises InputError: nothing can be written there, or several results would go to one place.
    :raises MissingError: what compresses a file of that name is not installed.
    """

    def __init__(self, *, packets: bool = False, **paths: str | None) -> None:
        if packets and paths.get("json") is None:
            raise InputError("--packets, and no JSON that they would be in", cure="give --json FILE, or leave it away")
        self._packets = packets
        self._outputs = [open_output(form, path) for form, path in paths.items() if path is not None]
        forms_by_place: dict[object, str] = {}
        for output in self._outputs:
            key = output.target if isinstance(output.target, Path) else output.place
            if key in forms_by_place:
                message = f"--{forms_by_place[key]} and --{output.form} both to {output.place}"
                raise InputError(message, cure="give each a place of its own")
            forms_by_place[key] = output.form
        if self._outputs:
            from lab.report import forms  # noqa: F401  before the trials as well: a checkout may change meanwhile

    @property
    def on_stdout(self) -> bool:
        """Whether standard output is taken, so that nothing else may be printed there."""
        return any(output.on_stdout for output in self._outputs)

    def write(self, found: Report | Matrix) -> bool:
        """Write what was found in every form that is wanted, and return whether all could be; else that is told."""
        if not self._outputs:  # nothing of what writes it has to be imported
            return True
        from lab.cases import GROUPS
        from lab.report import forms
        from lab.report.pcapng import without_packets

        catalogue = {case.name: (group, case.title) for group, cases in GROUPS.items() for case in cases}
        if self._packets or any(output.form == "pcapng" for output in self._outputs):
            for words in without_packets(found):
                print(f"lab: {words}", file=sys.stderr)
        return self._write(lambda form: forms.write(form, found, packets=self._packets, catalogue=catalogue))

    def write_reach(self, found: ReachReport) -> bool:
        """Write what `lab reach` found out, and return whether all could be; else that is told.

        :raises InputError: it has no such form; then nothing is written.
        """
        from lab.report import forms

        made = {output.form: forms.write_reach(output.form, found) for output in self._outputs}
        return self._write(made.__getitem__)

    def _write(self, made: Callable[[str], bytes]) -> bool:
        whole = True
        for output in self._outputs:
            try:
                output.write(made(output.form))
            except OutputError as error:
                print(f"lab: {error}", file=sys.stderr)
                whole = False
        return whole


def stamped(found: Result) -> Result:
    """Return what was found with when that was, and the command that repeats it."""
    return replace(found, when=int(time.time()), command=shlex.join(("lab", *sys.argv[1:])))


def open_output(form: str, path: str) -> Output:
    """Look at where results go.

    :param path: - for standard output.
    :raises InputError: nothing can be written there.
    :raises MissingError: what compresses a file of that name is not installed.
    """
    pack = packing(path)
    try:
        if path == "-" or _is_stdout(path):
            return Output(form, STDOUT, sys.stdout.buffer, pack)
        target = Path(os.path.realpath(path))
        is_device = any(target.is_relative_to(place) or Path(path).is_relative_to(place) for place in _DEVICES)
        if is_device or (target.exists() and not target.is_file()) or not target.name:
            return Output(form, path, open(path, "wb"), pack)
        try:
            with _beside(target):
                pass
        except OSError as error:
            if error.errno not in _IN_PLACE or not target.exists():
                raise
            with target.open("r+b"):
                pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot write {path}: {reason}") from None
    return Output(form, path, target, pack)


def _is_stdout(path: str) -> bool:
    """Return whether a name, such as /dev/stdout, is one of what standard output goes to."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(1))
    return False


def put(target: Path, data: bytes) -> None:
    """Write a file, all of it or nothing: what was there before stays where that fails.

    :raises OSError: it fails.
    """
    try:
        with _beside(target) as fresh:
            fresh.write_bytes(data)
            fresh.replace(target)
    except OSError as error:
        if error.errno not in _IN_PLACE or not target.exists():
            raise
        _overwrite(target, data)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Make an empty file beside another, with its mode, to be put in its place; else it is gone afterwards."""
    fresh = target.with_name(f".lab-{secrets.token_hex(8)}")
    with fresh.open("xb") as file, suppress(FileNotFoundError):
        os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
    try:
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _overwrite(target: Path, data: bytes) -> None:
    """Write over a file. What was there stays as it was where the disk has no room for this."""
    with target.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            os.posix_fallocate(file.fileno(), 0, len(data))
        except OSError:
            file.truncate(size)
            raise
        file.seek(0)
        file.write(data)
        file.truncate()
