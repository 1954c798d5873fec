"""One case with one fix, mode and address family, in a lab of its own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from lab.cases import Case
from lab.cases.demands import answered_at_node, to_vips
from lab.cast import Cast
from lab.conntrack.window import BE_LIBERAL
from lab.errors import InputError, LabError
from lab.fabric import Lab
from lab.features import require
from lab.fixes import Fix, Protection
from lab.kubeproxy import ProxyOptions
from lab.proxy import DEFAULT_VERSIONS
from lab.result import Result, Trial
from lab.stage import HalfOpenError, RefusedError, Scene
from lab.timeline import Timeline
from lab.topology.model import Host, Topology
from lab.traffic.stream import StalledError
from lab.words import Backend, Behaviour, Family, ProxyMode

#: Takes what was seen in a trial.
Keep: TypeAlias = Callable[[Timeline], None]


def _forget(_timeline: Timeline) -> None:
    pass


@dataclass(frozen=True)
class Setting:
    """A case, a fix, and where to try them.

    :param topology: with the proxy mode, version and backend that its nodes are to have.
    :param service: which Service is asked, as :func:`lab.cast.service_port` knows it; None for the first.
    """

    case: Case
    fix: Fix
    topology: Topology
    family: Family
    service: str | None = None

    @cached_property
    def players(self) -> Cast:
        """Who plays.

        :raises InputError: the topology, or its Service of this name, cannot play the case; says why.
        """
        return self.case.players(self.topology, self.family, self.service)

    @cached_property
    def trial(self) -> Trial:
        """What is tried, as plain data: the node is the one that judges, or where that is a pod, the first.

        :raises InputError: the topology has no node, or cannot play the case.
        """
        names = (self.players.node, *(node.name for node in self.topology.nodes))
        node = next((one for one in map(self.topology.host, names) if one.proxy_mode is not None), None)
        if node is None or node.proxy_mode is None:
            raise InputError(
                f"{self.topology.name}: a trial needs a node",
                cure="give a host proxy-mode, or see `lab list`",
            )
        mode = node.proxy_mode
        return Trial(
            self.case.name,
            self.fix.name,
            self.topology.name,
            mode,
            node.proxy_version or DEFAULT_VERSIONS[mode],
            node.backend if mode is ProxyMode.IPTABLES else None,
            self.family,
            self.service,
        )

    @property
    def protection(self) -> Protection:
        """What the node lets nobody have, by the fix or by kube-proxy's mode and version."""
        trial, fix = self.trial, self.fix
        set_before = fix.change.sysctls.get(BE_LIBERAL, "0") != "0"
        options = ProxyOptions(family=self.family, version=trial.proxy_version, conntrack_tcp_be_liberal=set_before)
        by_version = options.drops_invalid(trial.proxy_mode)
        protection = fix.protection | (Protection.DROP_FORWARD if by_version else Protection.NOTHING)
        protection |= to_vips(self.topology, self.players)
        hidden = self.case.about_answers and answered_at_node(self.topology, self.family, self.players)
        return protection.at_node if hidden else protection


def with_proxy(topology: Topology, mode: ProxyMode | None, version: str | None, backend: Backend | None) -> Topology:
    """Return the topology with other settings for the kube-proxy of its nodes; None keeps what the file says.

    :param backend: of the nodes in iptables mode.
    :raises InputError: a setting has nothing to set.
    """
    modes = {mode or host.proxy_mode for host in topology.nodes}
    given = {"proxy mode": mode, "proxy version": version, "backend": backend}
    for word, value in given.items():
        if value is not None and not modes:
            raise InputError(f"{topology.name}: {word} {value}, and no host has proxy-mode", cure="leave it away")
    if backend is not None and ProxyMode.IPTABLES not in modes:
        raise InputError(f"{topology.name}: backend {backend} is for iptables mode", cure="leave it away")

    def changed(host: Host) -> Host:
        if host.proxy_mode is None:
            return host
        if mode is not None and mode is not host.proxy_mode:
            # The file's version and backend were meant for its own mode.
            host = dataclasses.replace(host, proxy_mode=mode, proxy_version=None, backend=Backend.NFT)
        chosen = backend if host.proxy_mode is ProxyMode.IPTABLES and backend is not None else host.backend
        return dataclasses.replace(host, proxy_version=version or host.proxy_version, backend=chosen)

    return dataclasses.replace(topology, hosts=tuple(map(changed, topology.hosts)))


async def act(play: Callable[[Any], Awaitable[None]], stage: Scene, keep: Keep = _forget) -> Timeline:
    """Let a case play on a stage, and return what was seen.

    A connection that is refused, stays half open or stands still is an outcome like others, and ends it.

    :param keep: is given what was seen, also where an error ends the play.
    :raises LabError: something was waited for in vain, or an instrument failed.
    :raises MissingError: the machine lacks what the case needs.
    :raises InputError: the topology cannot play it.
    """
    try:
        with contextlib.suppress(RefusedError, HalfOpenError):
            await play(stage)
    except StalledError as standstill:
        stage.stand_still(str(standstill))
    except Exception:
        with contextlib.suppress(LabError, OSError):  # the first failure is the one to be told
            keep(stage.finish())
        raise
    timeline = stage.finish()
    keep(timeline)
    return timeline


def judge(setting: Setting, behaviour: Behaviour, timeline: Timeline) -> Result:
    """Decide what became of a trial, and lay it beside what a kernel of this behaviour should have done."""
    expected = setting.case.expected(behaviour, setting.protection)
    return Result(setting.trial, behaviour, expected, timeline, setting.case.decide(timeline))


async def run(setting: Setting, behaviour: Behaviour, keep: Keep = _forget) -> Result:
    """Build the lab, play the case, decide.

    :param behaviour: what this kernel is known to do (:func:`lab.behaviour.ask`).
    :param keep: see :func:`act`.
    :raises MissingError: the machine lacks what the case needs; says what brings it.
    :raises LabError: the trial could not be run; says why.
    """
    with Lab(setting.topology, family=setting.family, change=setting.fix.change) as lab:
        return await run_in(lab, setting, behaviour, keep)


async def run_in(lab: Lab, setting: Setting, behaviour: Behaviour, keep: Keep = _forget) -> Result:
    """Play the case of a setting in a lab that was built for it, and decide.

    The one way in which a trial is run: for the command, for pytest and in guests.

    :raises LabError: and others, as :func:`act`.
    """
    case = setting.case
    for feature in case.needs:
        require(feature)
    stage = case.stage(lab, setting.players, setting.family, behaviour)
    return judge(setting, behaviour, await act(case.play, stage, keep))
