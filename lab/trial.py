"""One case with one fix, mode and address family, in a lab of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

from lab.cases import Case
from lab.cases.demands import answered_at_node, to_vips
from lab.cast import Cast
from lab.errors import HeldUpWarning, InputError, LabError, MachineError, MissingError, warn
from lab.fabric import Lab
from lab.features import require
from lab.fixes import Fix, Protection
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.settings import DEFAULT_VERSIONS, KEYS, NOTHING_SAID, TOPOLOGYS, Said, Settings, settled, unfit
from lab.proxy import node_release, proxy_options
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


_LASTING: Final = (InputError, MissingError, MachineError)  # what comes of these comes again


class HeldUpError(LabError):
    """A trial failed, and the machine had kept it from running: that may be the clock's doing, so try it again."""


@dataclass(frozen=True)
class Setting:
    """A case, a fix, and where to try them.

    :param topology: with the proxy mode, version and backend that its nodes are to have.
    :param service: which Service is asked, as :func:`lab.cast.service_port` knows it; None for the first.
    :param said: the settings that its nodes have besides those of the topology, as options.
    """

    case: Case
    fix: Fix
    topology: Topology
    family: Family
    service: str | None = None
    said: tuple[str, ...] = ()

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
        node = self._node
        mode = node.proxy_mode or ProxyMode.IPTABLES
        release = node_release(node)
        return Trial(
            self.case.name,
            self.fix.name,
            self.topology.name,
            mode,
            release.name,
            node.backend if mode is ProxyMode.IPTABLES else None,
            self.family,
            self.service,
            self.said,
            release.known,
        )

    @cached_property
    def _node(self) -> Host:
        names = (self.players.node, *(node.name for node in self.topology.nodes))
        node = next((one for one in map(self.topology.host, names) if one.proxy_mode is not None), None)
        if node is None:
            raise InputError(
                f"{self.topology.name}: a trial needs a node",
                cure="give a host proxy-mode, or see `lab list`",
            )
        return node

    @property
    def protection(self) -> Protection:
        """What the node lets nobody have, by the fix or by kube-proxy's mode, version and settings."""
        fix, node = self.fix, self._node
        options = proxy_options(self.topology, node, self.family, fix.change)
        by_version = options.drops_invalid(node.proxy_mode or ProxyMode.IPTABLES)
        protection = fix.protection | (Protection.DROP_FORWARD if by_version else Protection.NOTHING)
        if node.conntrack_tcp_be_liberal:
            protection |= Protection.LIBERAL
        protection |= to_vips(self.topology, self.players)
        hidden = self.case.about_answers and answered_at_node(self.topology, self.family, self.players)
        return protection.at_node if hidden else protection


def with_proxy(
    topology: Topology,
    mode: ProxyMode | None,
    version: str | None,
    backend: Backend | None,
    settings: Settings = NOTHING_SAID,
    *,
    node: str | None = None,
) -> Topology:
    """Return the topology with other settings for the kube-proxy of its nodes; None keeps what the file says.

    :param backend: of the nodes in iptables mode.
    :param settings: and besides, on every node, or on ``node`` alone.
    :raises InputError: a setting has nothing to set, or the nodes' kube-proxy does not know it.
    """
    mode = mode or settings.mode
    _check_scope(topology, settings, 1 if node else len(topology.nodes))
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
            host = _in_mode(host, mode, version)
        chosen = backend if host.proxy_mode is ProxyMode.IPTABLES and backend is not None else host.backend
        host = dataclasses.replace(host, proxy_version=version or host.proxy_version, backend=chosen)
        said = said_of(host, settings) if node in (None, host.name) else {}
        return dataclasses.replace(host, **{field: one.value for field, one in said.items()})

    hosts = tuple(map(changed, topology.hosts))
    ranges = _cluster_said(hosts, settings)
    cidrs = ranges.value if ranges else topology.service_cidrs
    return dataclasses.replace(topology, hosts=hosts, service_cidrs=cidrs)


def _in_mode(host: Host, mode: ProxyMode, version: str | None) -> Host:
    """Return a node in another mode than its file says; what was meant for its own mode alone goes, and that is said.

    :param version: which is chosen besides; None keeps the file's where that has the mode.
    """
    place = f"hosts.{host.name}"
    ours = {field: getattr(Host, field) for field, row in KEYS.items() if row.mode not in (None, mode)}
    lost = [KEYS[field].key for field in ours if field in host.settings]
    if host.backend is not Backend.NFT and mode is not ProxyMode.IPTABLES:
        lost.append("backend")
    for key in lost:
        warn(f"{place}.{key}: not used: it is for {host.proxy_mode} mode")
    kept = host.proxy_version
    if kept is not None and not find_release(kept).has_mode(mode):
        default = DEFAULT_VERSIONS[mode]
        # Who takes the default of one mode, in words or not, takes that of the other.
        if version is None and kept != DEFAULT_VERSIONS[ProxyMode.IPTABLES]:
            warn(f"{place}.proxy-version: not used: kube-proxy {kept} has no {mode} mode; {default} is taken")
        kept = None
    return dataclasses.replace(host, proxy_mode=mode, proxy_version=kept, backend=Backend.NFT, **ours)


def as_options(topology: Topology, settings: Settings) -> tuple[str, ...]:
    """Return which settings count for any node of a topology, as options."""
    said = [one for node in topology.nodes for one in said_of(node, settings).values()]
    if ranges := _cluster_said(topology.hosts, settings):
        said.append(ranges)
    return tuple(dict.fromkeys(one.text for one in said))


def _cluster_said(hosts: Iterable[Host], settings: Settings) -> Said | None:
    """Return what was said of the cluster's ranges; None where nothing was.

    :raises InputError: no node's kube-proxy knows any.
    """
    said = settings.get("service_cidrs")
    if said is None:
        return None
    nodes = [(host.proxy_mode, node_release(host)) for host in hosts if host.proxy_mode]
    wrong = [unfit(said.setting, said.value, mode, release) for mode, release in nodes]
    first = wrong[0] if wrong and all(wrong) else None
    if first:
        raise InputError(f"{said.place}: {first.message}", cure=first.cure)
    return said


def said_of(node: Host, settings: Settings) -> dict[str, Said]:
    """Return which settings count for a node's kube-proxy, by field.

    :raises InputError: it does not know one.
    """
    its = Settings(tuple(one for one in settings.said if one.setting.field in KEYS))
    return settled(node.settings, its.fitting(node.proxy_mode or ProxyMode.IPTABLES, node_release(node)))


def _check_scope(topology: Topology, settings: Settings, nodes: int) -> None:
    """Refuse settings that are no topology's, or that are of one node where it has several.

    What a KubeProxyConfiguration says of the node's own name and address is not used, and that is said.
    """
    for one in settings.said:
        row = one.setting
        if row.field not in TOPOLOGYS and one.by_file:
            warn(f"{one.place}: not used: the topology {topology.name} decides that ({row.otherwise})")
        elif row.field not in TOPOLOGYS:
            raise InputError(f"{one.place}: the topology {topology.name} decides that", cure=row.otherwise)
        elif not topology.nodes:
            raise InputError(f"{topology.name}: {one.text}, and no host has proxy-mode", cure="leave it away")
        elif row.field == "node_pod_cidrs" and nodes > 1:
            cure = f"write each host's {row.key}"
            raise InputError(f"{one.place}: the topology {topology.name} has several nodes", cure=cure)


async def act(play: Callable[[Any], Awaitable[None]], stage: Scene, keep: Keep = _forget) -> Timeline:
    """Let a case play on a stage, and return what was seen.

    A connection that is refused, stays half open or stands still is an outcome like others, and ends it.

    :param keep: is given what was seen, also where an error ends the play.
    :raises LabError: something was waited for in vain, or an instrument failed.
    :raises HeldUpError: so it did, and the machine had kept the trial from running.
    :raises MissingError: the machine lacks what the case needs.
    :raises InputError: the topology cannot play it.
    """
    try:
        with contextlib.suppress(RefusedError, HalfOpenError):
            await play(stage)
    except StalledError as standstill:
        stage.stand_still(str(standstill))
    except Exception as error:
        seen = None
        with contextlib.suppress(LabError, OSError):  # the first failure is the one to be told
            seen = stage.finish()
            keep(seen)
        if seen is not None and seen.disturbed and isinstance(error, LabError) and not isinstance(error, _LASTING):
            raise HeldUpError(f"{seen.disturbed}: {error}") from error
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
    try:
        result = await _run_once(setting, behaviour, keep)
    except HeldUpError as error:
        say_again(setting, str(error))
    else:
        if not (held_up := in_doubt(result)):
            return result
        say_again(setting, held_up)
    return await _run_once(setting, behaviour, keep)


def in_doubt(result: Result) -> str:
    """Return what came of a trial that was not as expected, and was kept from running; empty for all others."""
    if result.as_expected or not result.timeline.disturbed:
        return ""
    verdict = result.verdict
    came = (f"{verdict.outcome} ({verdict.decided_by})", *verdict.disagreements)
    return f"{result.timeline.disturbed}: {'; '.join(came)}"


def say_again(setting: Setting, held_up: str) -> None:
    """Warn that a trial is tried once more; that is nobody's error, whatever else is to be done with warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", HeldUpWarning)
        warn(f"{setting.case.name} with {setting.fix.name} is tried again: {held_up}", HeldUpWarning)


async def _run_once(setting: Setting, behaviour: Behaviour, keep: Keep) -> Result:
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
