# SPDX-License-Identifier: MIT
"""What can be done with labs that stand: choose one, go into its hosts, end it, print them all."""

from __future__ import annotations

import os
import select
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NoReturn

from lab.errors import InputError, LabError, MissingError, nearest
from lab.netns.mounts import READ_ONLY, RECURSIVE, SLAVE, mount
from lab.netns.program import find
from lab.netns.syscalls import CLONE_NEWNET, CLONE_NEWNS, setns, unshare
from lab.standing import names
from lab.standing.control import kube_proxies
from lab.standing.record import StandingHost, StandingLab, forget, labs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PATIENCE: Final = 10.0  # seconds; an owner ends within a few hundredths of one


class NoProgramError(MissingError):
    """There is no such program to run in a host; told as shells tell it (POSIX.1-2017, XCU 2.8.2)."""

    exit_code = 127


class NotExecutableError(LabError):
    """There is something of that name to run in a host, but it is no program."""

    exit_code = 126


def choose(name: str | None) -> StandingLab:
    """Find the lab that is meant: the one of this name, or the only one.

    :raises InputError: there is none, or there are several and no name was given.
    :raises MissingError: the caller is not root.
    """
    found = labs()
    if not found:
        raise InputError("no lab stands", cure="`lab up TOPOLOGY`; `lab list` shows the topologies")
    known = ", ".join(lab.name for lab in found)
    if name is None:
        if len(found) > 1:
            raise InputError("several labs stand, so one must be named", cure=f"one of: {known}")
        return found[0]
    for lab in found:
        if lab.name == name:
            return lab
    raise InputError(f"no lab {name!r} stands", cure=nearest(name, (lab.name for lab in found)))


def enter(lab: StandingLab, host: StandingHost, command: Sequence[str]) -> NoReturn:
    """Become a program in a host of a lab.

    As `ip netns exec` does it, the program has a mount namespace of its own in which ``/sys`` is the host's,
    so that it sees the host's links there. iptables locks a file of the lab's instead of the machine's
    ``/run/xtables.lock``.

    :raises NoProgramError: there is no such program.
    :raises NotExecutableError: it cannot be run.
    :raises LabError: the owner of the lab is dead.
    """
    lab.check()
    program = _executable(command[0])
    namespace = names.opened(host.namespace)
    # By this descriptor all programs in the lab find the same file, and none makes it anew when it is gone.
    lock = os.open(lab.path, os.O_RDONLY)
    os.set_inheritable(lock, True)
    read_only = READ_ONLY if os.statvfs("/sys").f_flag & os.ST_RDONLY else 0
    unshare(CLONE_NEWNS)
    mount("", "/", SLAVE | RECURSIVE)
    setns(namespace.fileno(), CLONE_NEWNET)
    mount(host.namespace, "/sys", read_only, "sysfs")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and a program would too
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, list(command), {**os.environ, "XTABLES_LOCKFILE": f"/proc/self/fd/{lock}"})  # noqa: S606
    except OSError as error:
        raise NotExecutableError(f"{program} cannot be run: {error.strerror}") from None


def _executable(name: str) -> str:
    try:
        return find(name)
    except MissingError as error:
        paths = [name] if "/" in name else [os.path.join(place, name) for place in os.get_exec_path()]
        for path in filter(os.path.exists, paths):
            why = "it is a directory" if os.path.isdir(path) else f"it may not be executed (chmod +x {path})"
            raise NotExecutableError(f"{path} cannot be run: {why}") from None
        raise NoProgramError(error.what, error.cure) from None


def shell(lab: StandingLab, host: StandingHost) -> NoReturn:
    """Become an interactive shell in a host of a lab, with a prompt that names it.

    :raises LabError: the owner of the lab is dead.
    """
    prompt = f"[{lab.name}/{host.name}] "
    if shutil.which("bash") is None:
        os.environ["PS1"] = prompt
        enter(lab, host, ["sh", "-i"])
    settings = os.memfd_create("bashrc", 0)
    os.write(settings, f"[ ! -r ~/.bashrc ] || . ~/.bashrc\nPS1='{prompt}\\w\\$ '\n".encode())
    enter(lab, host, ["bash", "--rcfile", f"/proc/self/fd/{settings}", "-i"])


def down(lab: StandingLab) -> None:
    """End a lab: its owner takes everything down; what a dead one has left is removed.

    :raises MissingError: the caller is not root.
    """
    with suppress(ProcessLookupError):  # it has just ended by itself
        _end(lab)
    forget(lab.name)


def _end(lab: StandingLab) -> None:
    if lab.owner is None:
        return
    process = os.pidfd_open(lab.owner)
    try:
        # The descriptor is the owner's if the owner still lives: numbers of the dead are given to others.
        now = StandingLab.read(lab.path)
        if now is None or now.owner != lab.owner:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], _PATIENCE)[0]:
                return
        raise LabError(f"the owner of the lab {lab.name}, process {lab.owner}, does not end")
    finally:
        os.close(process)


@dataclass(frozen=True, kw_only=True)
class LabStatus(StandingLab):
    """A lab that stands, as programs get it.

    :param kube_proxies: the state of each node's; none where nobody can be asked.
    """

    kube_proxies: dict[str, str]


def told(lab: StandingLab) -> LabStatus:
    """Return a lab that stands for a program."""
    return LabStatus(**vars(lab), kube_proxies=_kube_proxies(lab))


def _kube_proxies(lab: StandingLab) -> dict[str, str]:
    """Return the state of each node's kube-proxy; none where nobody can be asked."""
    return kube_proxies(lab) if lab.owner is not None and not lab.is_foreign and lab.socket.exists() else {}


def status_lines(found: Sequence[StandingLab]) -> Iterator[str]:
    """Return the lines about standing labs, for a terminal."""
    if not found:
        yield "no lab stands"
    for lab in found:
        since = datetime.fromtimestamp(lab.since).astimezone().isoformat(" ", "seconds")
        if lab.owner is None:
            state = f"its owner is dead: `lab down {lab.name}` removes what it left"
        else:
            state = f"process {lab.owner}"
            if lab.is_foreign:
                state += ", made by another version: it can be entered and taken down, and not changed"
        yield f"{lab.name}: topology {lab.topology or 'unknown'}, since {since}, {state}"
        width = max((len(host.name) for host in lab.hosts), default=0)
        for host in lab.hosts:
            yield f"  {host.name:{width}}  {'  '.join(host.addresses)}"
        yield from (f"  {words}" for words in lag(lab))


def lag(lab: StandingLab) -> Iterator[str]:
    """Yield a sentence for each node whose kube-proxy is stopped: it does not follow what changes."""
    for node, state in _kube_proxies(lab).items():
        if state == "stopped":
            cure = f"`lab kube-proxy start {node} --lab {lab.name}`"
            yield f"the kube-proxy of {node} is stopped, so its rules follow no change until {cure}"
