# SPDX-License-Identifier: MIT
"""One trial of a batch, and what came of it: plain data that another process may have made."""

from __future__ import annotations

import dataclasses
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lab.errors import HeldUpWarning, InputError, LabError, MachineError, MissingError
from lab.trial import runner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lab.evidence.timeline import Timeline
    from lab.results.result import Result, Tally
    from lab.trial.setting import Setting
    from lab.vocabulary import Behaviour


@dataclass(frozen=True)
class Warned:
    """A warning, and where it was given."""

    message: Warning
    file: str
    line: int

    def give(self, given: dict[Any, Any]) -> None:
        """Give it again.

        :param given: those that were given before, as :func:`warnings.warn_explicit` knows them.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("always", HeldUpWarning)
            warnings.warn_explicit(self.message, type(self.message), self.file, self.line, registry=given)


@dataclass(frozen=True)
class Attempt:
    """What came of one run of a trial.

    :param result: None where it could not be run to its end, and nothing was seen.
    :param failure: why it could not be run to its end; empty where it could.
    :param missing: what the machine lacks for it, and what brings that; empty where it lacks nothing.
    :param fault: the traceback of a fault of the lab's own, for its authors; empty where it had none.
    :param seconds: from making the lab to its end.
    :param warned: what whoever uses the lab has to know.
    """

    result: Result | None
    failure: str = ""
    missing: str = ""
    fault: str = ""
    seconds: float = 0.0
    warned: tuple[Warned, ...] = ()

    def added_to(self, tally: Tally) -> Tally:
        """Return the tally with this run. Of a trial that cannot be run, no later run is heard of."""
        if tally.failure or tally.missing:
            return tally
        if self.failure:
            tally = dataclasses.replace(tally, failure=self.failure, sample=self.result or tally.sample)
        elif self.missing:
            tally = dataclasses.replace(tally, missing=self.missing)
        elif self.result is not None:
            tally = tally.and_then(self.result)
        return tally.and_took(self.seconds)


#: Runs a trial, as :func:`lab.trial.runner.run` does.
Run: TypeAlias = "Callable[[Setting, Behaviour, runner.Keep], Awaitable[Result]]"


async def attempt(setting: Setting, answer: Behaviour, run: Run = runner.run) -> Attempt:
    """Run a trial.

    :param answer: what this kernel is known to do.
    :raises InputError: the topology cannot run the case.
    :raises MachineError: the machine ran out of something.
    :raises OSError: likewise, or a fault of the lab's own.
    """
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        came = await _attempt(setting, answer, run)
    told = tuple(Warned(one.message, one.filename, one.lineno) for one in warned if isinstance(one.message, Warning))
    return dataclasses.replace(came, seconds=time.monotonic() - start, warned=told)


async def _attempt(setting: Setting, answer: Behaviour, run: Run) -> Attempt:
    seen: list[Timeline] = []
    fault = ""
    try:
        return Attempt(await run(setting, answer, seen.append))
    except (InputError, MachineError):
        raise
    except MissingError as error:
        return Attempt(None, missing=str(error))
    except LabError as error:
        failure = str(error)
    except OSError:
        raise
    except Exception as error:  # a bug keeps its traceback, and the other trials their results
        fault = traceback.format_exc()
        failure = f"a fault of the lab's own: {type(error).__name__}: {error}"
    if not seen:
        return Attempt(None, failure, fault=fault)
    timeline = dataclasses.replace(seen[-1], faults=(*seen[-1].faults, failure))
    return Attempt(runner.judge(setting, answer, timeline), failure, fault=fault)
