# SPDX-License-Identifier: MIT
"""Labs that several trials have, one after the other: of nodes whose rules were given, which may take long to load.

A node of ten thousand Services takes a minute to load and a trial takes milliseconds. Every other trial has a fresh
lab. Between trials conntrack's entries are deleted, and each client has a port of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.errors import InputError, LabError, MachineError, MissingError
from lab.fixes import NONE, Fix
from lab.trial import runner

if TYPE_CHECKING:
    from lab.fabric.lab import Lab
    from lab.results.result import Result
    from lab.topology.model import Topology
    from lab.topology.node_change import NodeChange
    from lab.trial.setting import Setting
    from lab.vocabulary import Behaviour, Family


class SharedLabs:
    """Runs trials, those on a node with given rules in a lab that it keeps for the next. It holds one at a time."""

    def __init__(self) -> None:
        self._lab: Lab | None = None
        self._place: tuple[Topology, Family] | None = None
        self._fix: Fix = NONE
        self._sysctls: dict[str, str | int] = {}  # as they were before the fix

    async def run(self, setting: Setting, behaviour: Behaviour, keep: runner.Keep) -> Result:
        """Run a trial as :func:`lab.trial.runner.run` does.

        One that comes out in doubt in a lab that was used before is run in a fresh one, and that counts: what counts
        packets there has counted those of other trials as well.

        :raises MissingError: as there.
        :raises LabError: as there.
        """
        if all(node.given is None for node in setting.topology.nodes):
            return await runner.run(setting, behaviour, keep)
        used = False

        @contextmanager
        def build(setting: Setting) -> Iterator[Lab]:
            nonlocal used
            with self._lent(setting) as lab:
                used = lab.trials > 0
                yield lab

        try:
            result = await runner.run(setting, behaviour, keep, build)
        except (InputError, MissingError, MachineError):
            raise
        except LabError:
            if not used:
                raise
        else:
            if not used or not (result.verdict.disagreements or result.timeline.counters.other_drops):
                return result
        return await runner.run(setting, behaviour, keep)

    @contextmanager
    def _lent(self, setting: Setting) -> Iterator[Lab]:
        lab = self._suiting(setting)
        try:
            with lab.lent():
                yield lab
        except BaseException:
            self.close()
            raise
        if lab.is_altered:
            self.close()

    def _suiting(self, setting: Setting) -> Lab:
        """Return the lab that there is, with the trial's fix if that can be; else a fresh one."""
        place, change = (setting.topology, setting.family), setting.fix.change
        lab = self._lab if self._place == place else None
        if lab is None or (setting.fix != self._fix and _adds(self._fix.change)):
            self.close()
            lab = self._lab = runner.fresh_lab(replace(setting, fix=NONE))
            self._place, self._fix = place, NONE
        if setting.fix != self._fix:
            namespace = lab.hosts[setting.roles.node].namespace
            namespace.set_sysctls(self._sysctls)
            self._sysctls = {}
            for key in change.sysctls:
                with suppress(FileNotFoundError):  # which is told where it is set
                    self._sysctls[key] = namespace.sysctl(key)
            self._fix = setting.fix
            lab.amend(change)
        return lab

    def close(self) -> None:
        """End the lab that there is."""
        lab, self._lab, self._place, self._sysctls = self._lab, None, None, {}
        if lab is not None:
            lab.close()


def _adds(change: NodeChange) -> bool:
    """Check whether a change adds what cannot be taken away: all but sysctls."""
    return bool(change.iptables or change.nftables or change.script or change.texts)
