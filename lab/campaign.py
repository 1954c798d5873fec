"""Many trials in a row: what the command runs."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import signal
import time
from collections.abc import Sequence
from typing import TypeAlias

from lab import __version__, behaviour, trial
from lab.cases import Case
from lab.errors import InputError, LabError, MachineError, MissingError
from lab.fixes import Fix
from lab.kubeproxy.versions import find_version
from lab.result import Report, Tally
from lab.timeline import Timeline
from lab.topology.model import Topology
from lab.topology.reader import load
from lab.trial import Setting, with_proxy
from lab.words import Backend, Behaviour, Family, ProxyMode

#: Mode, version and backend of a kube-proxy, None for what a topology says.
ProxyChoice: TypeAlias = tuple[ProxyMode | None, str | None, Backend | None]


def settings(
    cases: Sequence[Case], fixes: Sequence[Fix], topology: Topology, family: Family, proxy: ProxyChoice
) -> list[Setting]:
    """Return every case with every fix.

    :param topology: where those cases play that bring no topology of their own.
    :param proxy: mode, version and backend of the nodes' kube-proxy, None for what a topology says.
    :raises InputError: no such version is known.
    """
    _mode, version, _backend = proxy
    if version is not None:
        find_version(version)
    places = [with_proxy(load(case.topology) if case.topology else topology, *proxy) for case in cases]
    return [Setting(case, fix, place, family) for case, place in zip(cases, places, strict=True) for fix in fixes]


async def run(settings: Sequence[Setting], family: Family, repeat: int) -> Report:
    """Ask the kernel what it does, then try everything ``repeat`` times, with progress on stderr.

    Ctrl-C cancels it.

    :raises InputError: the topology cannot play these cases.
    :raises MachineError: the machine ran out of something on the way.
    :raises LabError: the kernel fits no known behaviour, or cannot hold a lab.
    """
    from rich.console import Console
    from rich.progress import Progress

    itself = asyncio.current_task()
    assert itself is not None
    # Ctrl-C between two steps and not within one: whatever a step has opened is closed.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, itself.cancel)
    answer = await behaviour.ask(family)
    tallies = {setting.trial: Tally(setting.trial) for setting in settings}
    with Progress(console=Console(stderr=True), transient=True, disable=not os.isatty(2)) as progress:
        task = progress.add_task("", total=len(settings) * repeat)
        # Round by round, so that a machine that changes under way shows in every trial and not in one.
        for _round, setting in itertools.product(range(repeat), settings):
            tally = tallies[setting.trial]
            progress.update(task, description=f"{setting.case.name} with {setting.fix.name}")
            if not tally.failure and not tally.missing:
                start = time.monotonic()
                tallies[setting.trial] = (await _once(tally, setting, answer)).and_took(time.monotonic() - start)
            progress.advance(task)
    return Report(__version__, os.uname().release, {family: answer}, tuple(tallies.values()))


async def _once(tally: Tally, setting: Setting, answer: Behaviour) -> Tally:
    seen: list[Timeline] = []
    try:
        return tally.and_then(await trial.run(setting, answer, seen.append))
    except (InputError, MachineError):
        raise
    except MissingError as error:
        return dataclasses.replace(tally, missing=str(error))
    except LabError as error:
        failed = dataclasses.replace(tally, failure=str(error))
        if not seen:
            return failed
        timeline = dataclasses.replace(seen[-1], faults=(*seen[-1].faults, str(error)))
        return dataclasses.replace(failed, sample=trial.judge(setting, answer, timeline))
