# SPDX-License-Identifier: MIT
"""Trying a case in a lab that stands: on a connection of its own, beside those that others have there.

What a trial brings along and changes is taken back behind it. The servers of the lab go on answering: the trial's own
listens beside them, for its client alone.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lab import __version__, fixes
from lab.cases import find
from lab.conntrack.flows import Flows
from lab.errors import InputError, LabError
from lab.evidence.packet import BARRIER_PORT
from lab.fabric.lab import Lab, lent_beside_others
from lab.results.result import Report, Tally
from lab.scenario import ConnectionScenario
from lab.trial import probe, runner
from lab.trial.attempt import attempt
from lab.trial.batch import select
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.results.result import Result
    from lab.trial.setting import Setting
    from lab.vocabulary import Behaviour


class Injected(NamedTuple):
    """What came of it.

    :param remarks: what whoever asked for it has to know.
    """

    report: Report
    remarks: tuple[str, ...]


async def inject(lab: Lab, fix: str, case: str, family: Family | None, service: str | None) -> Injected:
    """Try a case in a lab that others use.

    :param fix: that the lab's nodes have, by its name.
    :param family: the first that the lab has, when None.
    :param service: which Service is asked, instead of the first.
    :raises InputError: the case cannot run there; says why.
    :raises LabError: the lab cannot hold it.
    """
    chosen = family or lab.families[0]
    if chosen not in lab.families:
        raise InputError(f"this lab was built without {chosen}")
    found = find(case)
    if not issubclass(found.scenario, ConnectionScenario):
        message = f"{case} is about more than one TCP connection, and others have theirs here"
        raise InputError(message, cure=f"`lab run {case}` tries it in a lab of its own")
    selection = select([found], [fixes.find(fix)], lab.current, chosen, (None, None, None), service)
    [setting] = selection.settings
    answer = await probe.ask(chosen)
    try:
        came = await attempt(setting, answer, partial(_run, lab))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise LabError("a server of somebody's own has the address and port of an endpoint: end it first") from error
    tally = came.added_to(Tally(setting.trial))
    report = Report(__version__, os.uname().release, {chosen: answer}, (tally,))
    return Injected(report, (*selection.remarks, *(str(one.message) for one in came.warned)))


async def _run(lab: Lab, setting: Setting, behaviour: Behaviour, keep: runner.Keep) -> Result:
    return await runner.run(setting, behaviour, keep, partial(_lent, lab))


@contextmanager
def _lent(lab: Lab, setting: Setting) -> Iterator[Lab]:
    """Lend the lab to the trial, and delete the trial's entries behind it."""
    client = setting.roles.client_address
    mine = [f"[{client.address}]:{port}" for port in (client.port + max(1, lab.trials), BARRIER_PORT)]
    try:
        with lent_beside_others(lab):
            yield lab
    finally:
        for node in lab.topology.nodes:
            for end in mine:
                Flows(lab.hosts[node.name].namespace).delete(source=end)
