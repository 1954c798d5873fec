"""Many trials in a row: what the command runs."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Sequence

from lab import __version__, behaviour, trial
from lab.cases import Case
from lab.errors import InputError, LabError
from lab.fixes import Fix
from lab.result import Report, Tally
from lab.topology.model import Topology
from lab.trial import Setting
from lab.words import Behaviour, Family


async def run(cases: Sequence[Case], fixes: Sequence[Fix], topology: Topology, family: Family, repeat: int) -> Report:
    """Ask the kernel what it does, then try every case with every fix ``repeat`` times, with progress on stderr.

    Ctrl-C cancels it.

    :raises InputError: the topology cannot play these cases.
    :raises LabError: the kernel fits no known behaviour, or cannot hold a lab.
    """
    from rich.console import Console
    from rich.progress import Progress

    itself = asyncio.current_task()
    assert itself is not None
    # Ctrl-C between two steps and not within one: whatever a step has opened is closed.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, itself.cancel)
    answer = await behaviour.ask(family)
    settings = [Setting(case, fix, topology, family) for case in cases for fix in fixes]
    tallies = {setting.trial: Tally(setting.trial) for setting in settings}
    with Progress(console=Console(stderr=True), transient=True, disable=not os.isatty(2)) as progress:
        task = progress.add_task("trials", total=len(settings) * repeat)
        # Round by round, so that a machine that changes under way shows in every trial and not in one.
        for _round, setting in itertools.product(range(repeat), settings):
            tally = tallies[setting.trial]
            if not tally.failure:
                tallies[setting.trial] = await _once(tally, setting, answer)
            progress.advance(task)
    return Report(__version__, os.uname().release, {family: answer}, tuple(tallies.values()))


async def _once(tally: Tally, setting: Setting, answer: Behaviour) -> Tally:
    try:
        return tally.and_then(await trial.run(setting, answer))
    except InputError:
        raise
    except LabError as error:
        return Tally(tally.trial, tally.runs, tally.as_expected, tally.outcomes, tally.sample, str(error))
