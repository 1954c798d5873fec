# SPDX-License-Identifier: MIT
"""The process that owns a lab that stays: builds it, serves its endpoints, and ends with it.

Started by :mod:`lab.standing.up` as a program of its own, so that it holds nothing of its starter. It reads
what to build from standard input, and talks with its starter on the socket that its argument names: it says
how it went, as one line of JSON, and then goes on only if the starter is still there to answer. Whoever
interrupts or kills the starter before that has no lab.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab import fixes
from lab.errors import InputError, LabError, tell_warnings, told
from lab.fabric.lab import Lab
from lab.standing.control import Control
from lab.standing.record import StandingHost, StandingLab, standing
from lab.standing.servers import Servers
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.topology.model import Topology

_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Order:
    """What to build.

    :param name: of the lab.
    :param family: this one alone; both when None.
    :param fix: by its name, on every node.
    """

    name: str
    topology: Topology
    family: Family | None
    fix: str


def main() -> None:
    """Own one lab to its end."""
    tell_warnings()
    order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the starter, over a pipe
    if os.fork():
        os._exit(0)  # the starter goes on; the owner belongs to nobody
    # A signal that comes while the lab is being built waits until it can be obeyed in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    with socket.socket(fileno=int(sys.argv[1])) as starter:
        starter.set_inheritable(False)
        try:
            with Lab(order.topology, family=order.family, change=fixes.find(order.fix).change) as lab:
                asyncio.run(_own(lab, order, starter))
        except LabError as error:
            _tell(starter, {"error": str(error), "input": isinstance(error, InputError)})
        except OSError as error:
            _tell(starter, {"error": str(told(error)), "input": False})


async def _own(lab: Lab, order: Order, starter: socket.socket) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, ended.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    async with Servers(lab):
        record = _describe(lab, order)
        with standing(record, {name: host.namespace for name, host in lab.hosts.items()}):
            async with Control(lab, record.socket):
                _tell(starter, {})
                if _agreed(starter):
                    _detach(record)
                    starter.close()
                    await ended.wait()


def _describe(lab: Lab, order: Order) -> StandingLab:
    hosts = tuple(
        StandingHost(
            host.name,
            f"{order.name}-{host.name}",
            tuple(
                str(address)
                for end in order.topology.ends(host.name)
                for address in end.addresses
                if Family.of(address) in lab.families
            ),
        )
        for host in order.topology.hosts
    )
    return StandingLab(order.name, order.topology.name, time.time(), hosts)


def _tell(starter: socket.socket, news: dict[str, object]) -> None:
    with suppress(ConnectionError):  # it is gone, as the next question to it will show
        starter.sendall(json.dumps(news).encode() + b"\n")


def _agreed(starter: socket.socket) -> bool:
    """Wait for the starter's answer; there is none where it was interrupted or killed."""
    try:
        return bool(starter.recv(1))
    except ConnectionError:
        return False


def _detach(lab: StandingLab) -> None:
    """Leave the starter's terminal and directory; what goes wrong from here on is written to the log."""
    os.chdir("/")
    log = os.open(lab.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)


if __name__ == "__main__":
    main()
