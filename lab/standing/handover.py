# SPDX-License-Identifier: MIT
"""Between who starts a lab that stays and the process that owns it from then on: one is a program of the other.

The owner reads what it is for from standard input, and talks with its starter on the socket that its argument names: it
says how it went, as one line of JSON, and then goes on only if the starter is still there to answer. Whoever interrupts
or kills the starter before that has no lab.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError, LabError

if TYPE_CHECKING:
    from lab.standing.record import StandingLab

#: The signals that end an owner.
ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


# --- the starter's end ------------------------------------------------------------------------------


def hand_over(module: str, order: object, keep: Sequence[int] = ()) -> None:
    """Start an owner, and return when its lab stands.

    :param module: of its program.
    :param order: what it is for.
    :param keep: descriptors that it gets under their numbers here.
    :raises InputError: what was asked for cannot be.
    :raises LabError: something else went wrong; says what.
    """
    owner, its_end = socket.socketpair()
    with owner:
        try:
            with its_end:
                _start(module, order, (its_end.fileno(), *keep))
            _agree(owner)
        except BaseException:
            # An owner that gets no answer takes everything down again, and then its end is closed.
            with suppress(OSError):
                owner.shutdown(socket.SHUT_WR)
                while owner.recv(4096):
                    pass
            raise


def _start(module: str, order: object, keep: Sequence[int]) -> None:
    # -P: a directory named lab where the user happens to be is not this package.
    subprocess.run(
        [sys.executable, "-P", "-m", module, str(keep[0])],
        input=pickle.dumps(order),
        stdout=subprocess.DEVNULL,
        pass_fds=keep,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def _agree(owner: socket.socket) -> None:
    """Hear how it went, and let the owner go on alone."""
    with owner.makefile("rb") as told:
        line = told.readline()
        if not line:
            raise LabError("the owner of the lab ended before the lab was ready; its last words stand above")
        if error := json.loads(line).get("error"):
            raise (InputError if json.loads(line)["input"] else LabError)(error)
        owner.sendall(b"\n")
        told.read()  # until it has let go of this terminal


# --- the owner's end --------------------------------------------------------------------------------


def begin() -> tuple[Any, socket.socket]:
    """Return what the owner is for, and the socket to its starter; the starter goes on meanwhile.

    A signal that comes from here on waits until it can be obeyed in order.
    """
    order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the starter, over a pipe
    if os.fork():
        os._exit(0)  # the owner belongs to nobody
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    starter = socket.socket(fileno=int(sys.argv[1]))
    starter.set_inheritable(False)
    return order, starter


def tell(starter: socket.socket, news: dict[str, object]) -> None:
    """Report how it went: nothing where the lab stands, else the error."""
    with suppress(ConnectionError):  # it is gone, as the next question to it will show
        starter.sendall(json.dumps(news).encode() + b"\n")


def agreed(starter: socket.socket) -> bool:
    """Wait for the starter's answer; there is none where it was interrupted or killed."""
    try:
        return bool(starter.recv(1))
    except ConnectionError:
        return False


def detach(lab: StandingLab) -> None:
    """Leave the starter's terminal and directory; what goes wrong from here on is written to the log."""
    os.chdir("/")
    log = os.open(lab.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)


def tell_error(starter: socket.socket, error: LabError) -> None:
    """Report what went wrong."""
    tell(starter, {"error": str(error), "input": isinstance(error, InputError)})
