# SPDX-License-Identifier: MIT
"""The fixtures: a running lab, and trials of cases."""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Final

import pytest

from lab.errors import InputError, LabError, ServiceError
from lab.plugin import labs, options
from lab.plugin.marks import NAMESPACE_FIXTURE, missing_is_skipped
from lab.plugin.user_namespace import enter
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.cases import AnyCase
    from lab.evidence.timeline import Timeline
    from lab.fabric.lab import Lab
    from lab.fixes import Fix
    from lab.plugin.running_lab import RunningLab
    from lab.results.result import Result
    from lab.trial.setting import Setting
    from lab.vocabulary import Behaviour

_BEHAVIOURS: Final = pytest.StashKey["dict[Family, Behaviour]"]()  # of the session's config


class LabTrial:
    """What the fixture ``lab_trial`` gives: call it with a case, and it returns the result.

    The last trial's lab lives until the test's end, for a look at it where the test fails.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._labs: list[RunningLab] = []

    def __call__(
        self,
        case: str | AnyCase,
        *,
        fix: str | Fix | None = None,
        proxy_mode: str | None = None,
        proxy_version: str | None = None,
        backend: str | None = None,
        family: str | None = None,
        service: str | None = None,
        kube_proxy_config: str | Path | None = None,
        kube_proxy: str | Path | None = None,
        **settings: object,
    ) -> Result:
        """Try a case in a fresh lab; what is not given here is as the mark ``lab_topology`` says.

        Where no mark names a topology, the case runs in its own.

        :param case: a name from ``lab list``, or a case of one's own.
        :param fix: likewise; the node as kube-proxy leaves it where none is given.
        :param service: which is asked, instead of the first; the result's trial names it where there are several.
        :param kube_proxy_config: and ``kube_proxy``, a program that writes the nodes' rules: files beside the test.
        :param settings: of kube-proxy, named as its flags: ``masquerade_all=True``, ``detect_local_mode="NodeCIDR"``.
        :raises InputError: there is no such case, fix, mode, ..., or the topology does not suit the case; says why.
        :raises LabError: the trial could not be run; says why.
        """
        import asyncio

        from lab.trial.runner import run

        # What was asked for is told where it was asked, without the lab's own lines.
        __tracebackhide__ = operator.methodcaller("errisinstance", InputError)
        given = {
            "fix": fix,
            "proxy_mode": proxy_mode,
            "proxy_version": proxy_version,
            "backend": backend,
            "family": family,
            "service": service,
            "kube_proxy_config": kube_proxy_config,
            "kube_proxy": kube_proxy,
            **settings,
        }
        try:
            setting = self._asked(case, {key: value for key, value in given.items() if value is not None})
        except InputError as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        with missing_is_skipped():
            behaviour = _behaviour(self._item.config, setting.family)
            return asyncio.run(run(setting, behaviour, self._keep, self._build))

    def _asked(self, case: str | AnyCase, said: dict[str, object]) -> Setting:
        """Return what is to be tried.

        :raises InputError: there is no such thing.
        """
        from lab import cases
        from lab.trial.batch import select

        asked = options.asked_for(self._item).and_then(said, "lab_trial({}=...)".format)
        directory = self._item.path.parent
        with asked.place("service", ServiceError):
            [setting] = select(
                [cases.find(case) if isinstance(case, str) else case],
                [options.fix_of(asked)],
                None if asked["topology"] is None else options.topology_of(asked["topology"], directory),
                options.family_of(asked) or Family.IPV4,
                options.proxy_of(asked),
                options.service_of(asked),
                settings=options.with_program(asked, options.settings_of(asked, directory), directory),
            ).settings
        return setting

    @contextlib.contextmanager
    def _build(self, setting: Setting) -> Iterator[Lab]:
        """Build the next trial's lab, in place of the last one's."""
        self.close()
        lab = labs.build(self._item, setting.topology, setting.family, setting.fix, setting.service)
        self._labs.append(lab)
        yield lab.use()

    def _keep(self, timeline: Timeline) -> None:
        self._labs[-1].keep(timeline)

    def close(self) -> None:
        """End the last trial's lab."""
        for lab in self._labs:
            labs.end(self._item, lab)
        self._labs.clear()


def _behaviour(config: pytest.Config, family: Family) -> Behaviour:
    """Return what the kernel does; it is asked once a session and family."""
    import asyncio

    from lab.trial.probe import ask

    known = config.stash.setdefault(_BEHAVIOURS, {})
    if family not in known:
        known[family] = asyncio.run(ask(family))
    return known[family]


@pytest.fixture(scope="session", name=NAMESPACE_FIXTURE)
def namespace_fixture() -> None:
    """Whatever runs a lab is root, of the machine or of a user namespace."""
    with missing_is_skipped():
        enter()


@pytest.fixture
def lab_running(request: pytest.FixtureRequest, _lab_namespace: None) -> Iterator[RunningLab]:
    """A fresh running lab: of the topology that the mark ``lab_topology`` names, or of kube-proxy.yaml."""
    item = request.node
    try:
        asked = options.asked_for(item)
        wanted = options.lab_of(asked, item.path.parent)
        with missing_is_skipped(), asked.place("service", ServiceError):
            lab = labs.build(item, *wanted, served=True)
    except LabError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    yield lab
    labs.end(item, lab)


@pytest.fixture
def lab_trial(request: pytest.FixtureRequest, _lab_namespace: None) -> Iterator[LabTrial]:
    """Tries a case in a lab of its own: ``lab_trial("beyond-window", fix="none").verdict.outcome == "reset"``."""
    trial = LabTrial(request.node)
    yield trial
    trial.close()
