# SPDX-License-Identifier: MIT
"""One thing that is looked at, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lab.errors import LabError, MachineError, MissingError, raise_if_exhausted

if TYPE_CHECKING:
    from collections.abc import Callable


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    :param necessary: no lab can run without it.
    :param cure: what brings it, where it is missing.
    """

    name: str
    state: State
    detail: str
    cure: str = ""
    necessary: bool = False


def check(name: str, trial: Callable[[], str], cure: str = "", *, necessary: bool = True) -> Check:
    """Make a check of a trial that returns what it found, or raises.

    :raises ExhaustedError: the trial came to no end for want of something.
    """
    try:
        return Check(name, State.OK, trial(), necessary=necessary)
    except (LabError, OSError) as error:
        raise_if_exhausted(error)
        known = MachineError.of(error) if isinstance(error, OSError) else error
        if isinstance(known, MissingError | MachineError):
            return Check(name, State.MISSING, known.what, known.cure or cure, necessary=necessary)
        return Check(name, State.MISSING, str(error), cure, necessary=necessary)
