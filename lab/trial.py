"""One case with one fix, mode and address family, in a lab of its own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lab.cases import Case, Protection
from lab.errors import InputError
from lab.fabric import Lab
from lab.fixes import Fix
from lab.kubeproxy import ProxyOptions
from lab.kubeproxy.services import service_ports
from lab.proxy import DEFAULT_VERSIONS
from lab.result import Result, Trial
from lab.stage import CLIENT_PORT, Cast, RefusedError, Stage
from lab.timeline import Timeline
from lab.topology.model import Host, Topology
from lab.verdict import decide
from lab.wire.packet import SocketAddress
from lab.words import Backend, Behaviour, Family, ProxyMode


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
        trial = self.trial
        options = ProxyOptions(
            family=self.family, version=trial.proxy_version, conntrack_tcp_be_liberal=self.fix.be_liberal
        )
        by_version = trial.proxy_mode is ProxyMode.IPTABLES and options.drops_invalid
        drops = self.fix.drops_invalid or by_version
        if self.fix.be_liberal:
            return Protection.BOTH if drops else Protection.LIBERAL
        return Protection.DROP if drops else Protection.NOTHING


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


def cast(topology: Topology, family: Family) -> Cast:
    """Choose who plays in a topology: its first client, its first node, and the endpoints of its first service.

    :raises InputError: someone is missing.
    """
    if not topology.clients or not topology.nodes:
        raise InputError(
            f"{topology.name}: a trial needs a client and a node with proxy-mode",
            cure="take one from `lab list`",
        )
    client, node = topology.clients[0].name, topology.nodes[0].name
    own = next(iter(topology.addresses(client, family)), None)
    for port in service_ports(topology.services, topology.endpoint_slices, ProxyOptions(family=family)):
        servers = tuple(
            (host.name, SocketAddress(target.address, target.port))
            for target in port.endpoints.reachable
            if (host := topology.host_of(target.address)) is not None
        )
        if port.protocol == "tcp" and own is not None and servers:
            client_address = SocketAddress(str(own), CLIENT_PORT)
            return Cast(client, node, client_address, servers, SocketAddress(port.cluster_ip, port.port))
    raise InputError(
        f"{topology.name}: no TCP service with an {family} endpoint that a host has",
        cure="add a Service and an EndpointSlice of this family, or take the other --family",
    )


async def act(play: Callable[[Stage], Awaitable[None]], stage: Stage) -> None:
    """Let a case play on a stage. A connection that is refused is an outcome like others, and ends it."""
    with contextlib.suppress(RefusedError):
        await play(stage)


def judge(setting: Setting, behaviour: Behaviour, timeline: Timeline) -> Result:
    """Decide what became of a trial, and lay it beside what a kernel of this behaviour should have done."""
    expected = setting.case.expectations[behaviour][setting.protection]
    return Result(setting.trial, behaviour, expected, timeline, decide(timeline))


async def run(setting: Setting, behaviour: Behaviour) -> Result:
    """Build the lab, play the case, decide.

    :param behaviour: what this kernel is known to do (:func:`lab.behaviour.ask`).
    :raises LabError: the trial could not be run; says why.
    """
    players = cast(setting.topology, setting.family)
    with Lab(setting.topology, family=setting.family, change=setting.fix.change) as lab:
        stage = Stage(lab, players, setting.family, behaviour)
        await act(setting.case.play, stage)
        timeline = stage.finish()
    return judge(setting, behaviour, timeline)
