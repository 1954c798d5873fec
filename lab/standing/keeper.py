# SPDX-License-Identifier: MIT
"""A lab that another process has built stays as it is: a process that does nothing but own it.

Nothing answers at its endpoints but what runs in it already, and they cannot be changed.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import LabError, told
from lab.netns import Namespace, userns
from lab.standing.handover import ENDING, agreed, begin, detach, hand_over, tell, tell_error
from lab.standing.record import StandingLab, describe, labs, needs_root, standing

if TYPE_CHECKING:
    from lab.fabric.lab import Lab

_LONGEST = 40  # characters of a name: with a host's name it is one of a file


@dataclass(frozen=True)
class _Order:
    """What to own.

    :param namespaces: the hosts' descriptors.
    """

    lab: StandingLab
    namespaces: dict[str, int]


def require_root() -> None:
    """Check that labs may stay.

    :raises MissingError: the caller is not root.
    """
    if not userns.privileged():
        raise needs_root()


def keep(lab: Lab, called: str) -> StandingLab:
    """Have a lab of this process stay when the process has given it up or ended, and return what it is now.

    :param called: what to name it after.
    :raises MissingError: the caller is not root.
    :raises LabError: it cannot stand.
    """
    require_root()
    name = _free(re.sub(r"[^a-z0-9]+", "-", called.lower()).strip("-")[:_LONGEST].strip("-") or "lab")
    record = describe(name, lab.topology, lab.families)
    namespaces = {host: running.namespace.fileno() for host, running in lab.hosts.items()}
    hand_over(__name__, _Order(record, namespaces), tuple(namespaces.values()))
    return record


def _free(name: str) -> str:
    """Return a name that no lab has: this one, or with a number behind it."""
    taken = {lab.name for lab in labs()}
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def main() -> None:
    """Own one lab to its end."""
    order, starter = begin()
    with starter:
        try:
            namespaces = {name: Namespace(descriptor) for name, descriptor in order.namespaces.items()}
            with standing(order.lab, namespaces):
                tell(starter, {})
                if agreed(starter):
                    detach(order.lab)
                    starter.close()
                    signal.sigwait(ENDING)
        except LabError as error:
            tell_error(starter, error)
        except OSError as error:
            tell_error(starter, told(error))


if __name__ == "__main__":
    main()
