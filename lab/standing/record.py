# SPDX-License-Identifier: MIT
"""The records of the labs that stand: a file each in ``/run/lab``, locked by its owner while that lives.

The kernel drops the lock with its holder, and tells everyone who asks which process that is (fcntl(2),
F_GETLK). So a dead owner is never taken for a living one, whichever process has its number by now. What
changes the directory is done under a lock of the whole of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from lab import __version__
from lab.errors import InputError, LabError, MissingError, nearest
from lab.standing import names
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from lab.netns import Namespace
    from lab.topology.model import Topology

DIRECTORY: Final = Path("/run/lab")
_ENDING: Final = ".json"
_NOTE: Final = DIRECTORY / ".netns"  # says what names.prepare changed
_FLOCK: Final = "hhqqi4x"  # struct flock, include/uapi/asm-generic/fcntl.h, on 64 bits


@dataclass(frozen=True)
class StandingHost:
    """A host of a standing lab.

    :param namespace: its name for ``ip netns``.
    :param addresses: with their prefix lengths, in the order of the links.
    """

    name: str
    namespace: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class StandingLab:
    """A lab that stays, as its record tells.

    :param since: when it was ready, in seconds since the epoch.
    :param owner: the process that serves it; None where that is dead.
    :param version: of the program that made it; empty where that did not say it yet.
    """

    name: str
    topology: str
    since: float
    hosts: tuple[StandingHost, ...]
    owner: int | None = None
    version: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether another version has made it: what that takes for a question, and answers, is not known here."""
        return bool(self.hosts) and self.version != __version__

    def check(self) -> None:
        """Check that the lab lives.

        :raises LabError: its owner is dead.
        """
        if self.owner is None:
            raise LabError(f"the owner of the lab {self.name} is dead: `lab down {self.name}`, then `lab up` again")

    def host(self, name: str) -> StandingHost:
        """Find a host.

        :raises InputError: there is none of this name.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = (host.name for host in self.hosts)
        raise InputError(f"the lab {self.name} has no host {name!r}", cure=nearest(name, known))

    @property
    def log(self) -> Path:
        """Where the owner writes what goes wrong."""
        return DIRECTORY / f"{self.name}.log"

    @property
    def socket(self) -> Path:
        """Where the owner takes questions (see :mod:`lab.standing.control`)."""
        return DIRECTORY / f"{self.name}.sock"

    @property
    def path(self) -> Path:
        """The record."""
        return DIRECTORY / f"{self.name}{_ENDING}"

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> Self:
        hosts = tuple(StandingHost(host["name"], host["namespace"], tuple(host["addresses"])) for host in data["hosts"])
        known = {field.name for field in fields(cls)}  # another version's may have more
        return cls(**{name: value for name, value in data.items() if name in known} | {"hosts": hosts})

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a record, and ask who holds it; None where it is gone, or not written yet.

        A lab whose owner died before it had written anything has no hosts.
        """
        try:
            with path.open("rb") as file:
                owner = _holder(file.fileno())
                text = file.read()
        except FileNotFoundError:
            return None
        if not text:
            return None if owner else cls(path.stem, "", path.stat().st_mtime, ())
        return replace(cls._from_json(json.loads(text)), owner=owner)


def describe(name: str, topology: Topology, families: Collection[Family]) -> StandingLab:
    """Return the record of a lab that is built, and stands from now on."""
    hosts = tuple(
        StandingHost(
            host.name,
            f"{name}-{host.name}",
            tuple(  # each once: the ends of a bridge have its address all alike
                dict.fromkeys(
                    str(address)
                    for end in topology.ends(host.name)
                    for address in end.addresses
                    if Family.of(address) in families
                )
            ),
        )
        for host in topology.hosts
    )
    return StandingLab(name, topology.name, time.time(), hosts, version=__version__)


def labs() -> tuple[StandingLab, ...]:
    """List the labs that stand, and those whose owner is dead, by name.

    :raises MissingError: the caller is not root.
    """
    try:
        files = sorted(os.listdir(DIRECTORY))
    except FileNotFoundError:
        return ()
    except PermissionError:
        raise needs_root() from None
    found = (StandingLab.read(DIRECTORY / file) for file in files if file.endswith(_ENDING))
    return tuple(lab for lab in found if lab is not None)


@contextmanager
def standing(lab: StandingLab, namespaces: Mapping[str, Namespace]) -> Iterator[None]:
    """Keep a lab standing for the length of the block, owned by this process: recorded, and its namespaces named.

    :param namespaces: by the hosts' names.
    :raises InputError: a lab of this name stands already, or a namespace has one of the names.
    :raises MissingError: the caller is not root.
    """
    with _directory():
        before = StandingLab.read(lab.path)
        if before is not None and before.owner is not None:
            raise InputError(f"a lab {lab.name} stands already", cure=f"`lab down {lab.name}`, or take another --name")
        if before is not None:
            _remove(before)
        # From here on this process opens its record no second time: closing that would drop the lock.
        record = os.open(lab.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(record, fcntl.LOCK_EX)
            with open(record, "wb", closefd=False) as file:
                file.write(json.dumps(asdict(lab)).encode())
            names.prepare(_NOTE)
            names.give({host.namespace: namespaces[host.name] for host in lab.hosts})
        except BaseException as error:
            lab.path.unlink()
            os.close(record)
            if isinstance(error, PermissionError):  # root of a user namespace must not mount here
                raise needs_root() from None
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(lab.path)
            raise
    try:
        yield
    finally:
        with _directory():
            _remove(lab)
        os.close(record)


def forget(name: str) -> None:
    """Remove what a dead owner has left; nothing where there is no such lab, or it lives.

    :raises MissingError: the caller is not root.
    """
    with _directory():
        lab = StandingLab.read(DIRECTORY / f"{name}{_ENDING}")
        if lab is not None and lab.owner is None:
            _remove(lab)


@contextmanager
def _directory() -> Iterator[None]:
    """Lock the directory for the length of the block; the last lab takes it along."""
    while True:
        try:
            DIRECTORY.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            raise needs_root() from None
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # the last lab took it along while this one waited
    try:
        yield
    finally:
        if not any(file.endswith(_ENDING) for file in os.listdir(DIRECTORY)):
            names.undo(_NOTE)
            with suppress(OSError):  # somebody has put something there: it is theirs
                DIRECTORY.rmdir()
        os.close(descriptor)


def _remove(lab: StandingLab) -> None:
    for host in lab.hosts:
        names.take(host.namespace)
    lab.log.unlink(missing_ok=True)
    lab.socket.unlink(missing_ok=True)
    lab.path.unlink(missing_ok=True)


def _holder(descriptor: int) -> int | None:
    """Return who holds the lock of a record."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else int(process)


def needs_root() -> MissingError:
    """Make the error for a caller who is not root."""
    return MissingError("a lab that stays needs root", "run it with sudo (`lab run` needs none)")
