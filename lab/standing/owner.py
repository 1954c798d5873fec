# SPDX-License-Identifier: MIT
"""The process that owns a lab that stays: builds it, serves its endpoints, and ends with it.

Started by :mod:`lab.standing.up` as a program of its own, so that it holds nothing of its starter.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab import fixes
from lab.errors import LabError, tell_warnings, told
from lab.fabric.lab import Lab
from lab.standing.control import Control
from lab.standing.handover import ENDING, agreed, begin, detach, tell, tell_error
from lab.standing.handshakes import Handshakes
from lab.standing.record import describe, standing
from lab.standing.servers import Servers

if TYPE_CHECKING:
    import socket

    from lab.topology.model import Topology
    from lab.vocabulary import Family


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
    order, starter = begin()
    with starter:
        try:
            with Lab(order.topology, family=order.family, change=fixes.find(order.fix).change) as lab:
                asyncio.run(_own(lab, order, starter))
        except LabError as error:
            tell_error(starter, error)
        except OSError as error:
            tell_error(starter, told(error))


async def _own(lab: Lab, order: Order, starter: socket.socket) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, ended.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    async with Handshakes(lab) as handshakes, Servers(lab) as servers:
        record = describe(order.name, order.topology, lab.families)
        with standing(record, {name: host.namespace for name, host in lab.hosts.items()}):
            async with Control(lab, order.fix, servers, handshakes, record.socket):
                tell(starter, {})
                if agreed(starter):
                    detach(record)
                    starter.close()
                    await ended.wait()


if __name__ == "__main__":
    main()
