"""One case with one fix, mode and address family, in a lab of its own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lab.cases import Case
from lab.conntrack.window import BE_LIBERAL
from lab.errors import InputError
from lab.fabric import Lab
from lab.features import require
from lab.fixes import Fix, Protection
from lab.kubeproxy import ProxyOptions
from lab.proxy import DEFAULT_VERSIONS
from lab.result import Result, Trial
from lab.stage import RefusedError, Scene
from lab.timeline import Timeline
from lab.topology.model import Host, Topology
from lab.words import Backend, Behaviour, Family, ProxyMode

# What the programs of each backend need of the kernel.
_BACKENDS: Final[Mapping[tuple[Backend | None, Family], tuple[str, ...]]] = {
    (Backend.NFT, Family.IPV4): ("nft_compat",),
    (Backend.NFT, Family.IPV6): ("nft_compat",),
    (Backend.LEGACY, Family.IPV4): ("ip_tables",),
    (Backend.LEGACY, Family.IPV6): ("ip6_tables",),
}


@dataclass(frozen=True)
class Setting:
    """A case, a fix, and where to try them.

    :param topology: with the proxy mode, version and backend that its nodes are to have.
    """

    case: Case
    fix: Fix
    topology: Topology
    family: Family

    @property
    def trial(self) -> Trial:
        """What is tried, as plain data.

        :raises InputError: the topology has no node.
        """
        node = self.topology.nodes[0] if self.topology.nodes else None
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
        )

    @property
    def protection(self) -> Protection:
        """What stands between an INVALID packet and the client, by the fix or by kube-proxy's version."""
        trial, fix = self.trial, self.fix
        set_before = fix.change.sysctls.get(BE_LIBERAL, "0") != "0"
        options = ProxyOptions(family=self.family, version=trial.proxy_version, conntrack_tcp_be_liberal=set_before)
        by_version = trial.proxy_mode is ProxyMode.IPTABLES and options.drops_invalid
        return fix.protection | (Protection.DROP_FORWARD if by_version else Protection.NOTHING)


def with_proxy(topology: Topology, mode: ProxyMode | None, version: str | None, backend: Backend | None) -> Topology:
    """Return the topology with other settings for the kube-proxy of its nodes; None keeps what the file says."""

    def changed(host: Host) -> Host:
        if host.proxy_mode is None:
            return host
        if mode is not None and mode is not host.proxy_mode:
            # The file's version and backend were meant for its own mode.
            host = dataclasses.replace(host, proxy_mode=mode, proxy_version=None, backend=Backend.NFT)
        return dataclasses.replace(host, proxy_version=version or host.proxy_version, backend=backend or host.backend)

    return dataclasses.replace(topology, hosts=tuple(map(changed, topology.hosts)))


async def act(play: Callable[[Any], Awaitable[None]], stage: Scene) -> None:
    """Let a case play on a stage. A connection that is refused is an outcome like others, and ends it."""
    with contextlib.suppress(RefusedError):
        await play(stage)


def judge(setting: Setting, behaviour: Behaviour, timeline: Timeline) -> Result:
    """Decide what became of a trial, and lay it beside what a kernel of this behaviour should have done."""
    expected = setting.case.expected(behaviour, setting.protection)
    return Result(setting.trial, behaviour, expected, timeline, setting.case.decide(timeline))


async def run(setting: Setting, behaviour: Behaviour) -> Result:
    """Build the lab, play the case, decide.

    :param behaviour: what this kernel is known to do (:func:`lab.behaviour.ask`).
    :raises MissingError: the machine lacks what the case needs; says what brings it.
    :raises LabError: the trial could not be run; says why.
    """
    case = setting.case
    for feature in (*_BACKENDS.get((setting.trial.backend, setting.family), ()), *case.needs):
        require(feature)
    players = case.cast(setting.topology, setting.family)
    with Lab(setting.topology, family=setting.family, change=setting.fix.change) as lab:
        stage = case.stage(lab, players, setting.family, behaviour)
        await act(case.play, stage)
        timeline = stage.finish()
    return judge(setting, behaviour, timeline)
