# SPDX-License-Identifier: MIT
"""One case with one fix, mode and address family, in a lab of its own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias, TypeVar

from lab.errors import HeldUpWarning, InputError, LabError, MachineError, MissingError, warn
from lab.evidence.timeline import Timeline
from lab.fabric.lab import Lab
from lab.netns.features import require
from lab.results.result import Result
from lab.scenario import HalfOpenError, RefusedError, Scenario
from lab.traffic.tcp import StalledError
from lab.trial.setting import Setting
from lab.vocabulary import Behaviour

#: Takes what was seen in a trial.
Keep: TypeAlias = Callable[[Timeline], None]

E = TypeVar("E", bound=Timeline)

#: Makes the lab of a trial, for as long as the trial takes.
Build: TypeAlias = Callable[[Setting], AbstractContextManager[Lab]]


def _forget(_timeline: Timeline) -> None:
    pass


_LASTING: Final = (InputError, MissingError, MachineError)  # what comes of these comes again


class HeldUpError(LabError):
    """A trial failed, and the machine had kept it from running: that may be the clock's doing, so try it again."""


async def carry_out(steps: Callable[[], Awaitable[None]], scenario: Scenario[E], keep: Keep = _forget) -> E:
    """Carry out a case's steps in a scenario, and return what was seen.

    A connection that is refused, stays half open or stands still is an outcome like others, and ends it.

    :param keep: is given what was seen, also where an error ends the steps.
    :raises LabError: something was waited for in vain, or an instrument failed.
    :raises HeldUpError: so it did, and the machine had kept the trial from running.
    :raises MissingError: the machine lacks what the case needs.
    :raises InputError: the topology cannot run it.
    """
    try:
        with contextlib.suppress(RefusedError, HalfOpenError):
            await steps()
    except StalledError as standstill:
        scenario.stand_still(str(standstill))
    except Exception as error:
        seen = None
        with contextlib.suppress(LabError, OSError):  # the first failure is the one to be told
            seen = scenario.finish()
            keep(seen)
        if seen is not None and seen.disturbed and isinstance(error, LabError) and not isinstance(error, _LASTING):
            raise HeldUpError(f"{seen.disturbed}: {error}") from error
        raise
    timeline = scenario.finish()
    keep(timeline)
    return timeline


def judge(setting: Setting, behaviour: Behaviour, timeline: Timeline) -> Result:
    """Decide what became of a trial, and lay it beside what a kernel of this behaviour should have done."""
    verdict = setting.case.scenario.decide(timeline)
    return Result(setting.trial, behaviour, setting.expected(behaviour), timeline, verdict)


def fresh_lab(setting: Setting) -> Lab:
    """Build the lab of a setting."""
    return Lab(setting.topology, family=setting.family, change=setting.fix.change, traced=setting.is_traced)


async def run(
    setting: Setting,
    behaviour: Behaviour,
    keep: Callable[[Timeline], None] = _forget,
    build: Callable[[Setting], AbstractContextManager[Lab]] = fresh_lab,
) -> Result:
    """Build a lab, carry out the steps of the case there, and return what became of it.

    The one way in which a trial is run: for the command, for pytest and in guests. Where the machine kept it from
    running it is tried once more, in another lab.

    :param behaviour: what this kernel is known to do (``ask_kernel`` returns it).
    :param keep: is called with the timeline, also where the trial ends in an error.
    :param build: returns the lab to ``with``, for a setting; a fresh one where nothing is given.
    :raises MissingError: the machine lacks what the case or the nodes' backend needs; says what brings it.
    :raises LabError: the trial could not be run; says why.
    """
    try:
        result = await _run_once(setting, behaviour, keep, build)
    except HeldUpError as error:
        _warn_of_another(setting, str(error))
    else:
        if not (held_up := _in_doubt(result)):
            return result
        _warn_of_another(setting, held_up)
    return await _run_once(setting, behaviour, keep, build)


def _in_doubt(result: Result) -> str:
    """Return what came of a trial that was not as expected, and was kept from running; empty for all others."""
    if result.as_expected or not result.timeline.disturbed:
        return ""
    verdict = result.verdict
    came = (f"{verdict.outcome} ({verdict.decided_by})", *verdict.disagreements)
    return f"{result.timeline.disturbed}: {'; '.join(came)}"


def _warn_of_another(setting: Setting, held_up: str) -> None:
    """Warn that a trial is tried once more; that is nobody's error, whatever else is to be done with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", HeldUpWarning)
        warn(f"{setting.case.name} with {setting.fix.name} is tried again: {held_up}", HeldUpWarning)


async def _run_once(setting: Setting, behaviour: Behaviour, keep: Keep, build: Build) -> Result:
    """Do so once.

    :raises HeldUpError: it failed, and the machine had kept it from running.
    """
    case = setting.case
    for feature in case.needs:
        require(feature)
    with build(setting) as lab:
        roles = setting.roles
        if lab.trials:  # the client's port may be in use still, as one that waits for its TIME_WAIT to end
            address = roles.client_address
            roles = replace(roles, client_address=replace(address, port=address.port + lab.trials))
        scenario = case.scenario(lab, roles, setting.family, behaviour)
        return judge(setting, behaviour, await carry_out(partial(case.steps, scenario), scenario, keep))
