# SPDX-License-Identifier: MIT
"""From a topology to a running lab, and its end.

Namespaces first, then the rules of the nodes are started on their way (loading them is a program's work) while the
links are built; what is left is to wait until every link carries packets and every address takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from lab.conntrack.netlink import ConntrackTable
from lab.errors import InputError, LabError, MachineError, MissingError, nearest
from lab.evidence.packet import Ends
from lab.fabric.connections import connections
from lab.fabric.endpoints import Endpoints
from lab.fabric.given import GivenNode
from lab.fabric.host import RunningHost
from lab.fabric.kube_proxy import KubeProxy
from lab.fabric.links import build_links, set_own_sysctls
from lab.fabric.services import Services
from lab.netns.reaper import Closable, close_all
from lab.topology.kube_proxy import addition, node_proxy
from lab.topology.model import Host, Topology
from lab.topology.node_change import NodeChange
from lab.topology.values import IPNetwork
from lab.topology.ways import step
from lab.vocabulary import Family, ProxyMode
from lab.wire.craft import Injector

if TYPE_CHECKING:
    from lab.fabric.program_node import ProgramNode
    from lab.kubernetes.objects import EndpointSlice, Service

Kept = TypeVar("Kept", bound=Closable)


class Lab:
    """A topology, running. It ends with :meth:`close`, with the ``with`` that it is used in, or with its process.

    :param family: build this family alone; both when None.
    :param change: what a fix changes on every node.
    :param traced: have the kernel tell which rules of the nodes a trial's packets meet.
    :ivar changes: what fixes have changed on its nodes, one after the other.
    :ivar hosts: the running hosts by name, each with its namespace.
    :ivar topology: what was built; ``families``: for which address families.
    :ivar services: and ``endpoint_slices``: what the nodes serve now; at first the topology's.
    :ivar after_change: called when the nodes serve other Services or endpoints.
    :ivar has_others: whether others have connections in it, which a trial leaves alone.
    :ivar others: the ends of both directions of those TCP connections that they have, before and after translation.
    :ivar stopped: the nodes whose kube-proxy is stopped, and to which no change comes.
    :ivar trials: how many have had it (see :meth:`lent`).
    :ivar is_altered: whether something was changed that :meth:`lent` does not take back.
    :raises MissingError: a program or a kernel feature is not there.
    :raises MachineError: the machine ran out of something, such as descriptors.
    :raises LabError: the kernel refused a part of it.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        family: Family | None = None,
        change: NodeChange | None = None,
        traced: bool = False,
    ) -> None:
        self.topology, self.traced = topology, traced
        self.changes = [change or NodeChange()]
        self.families = tuple(Family) if family is None else (family,)
        self.services, self.endpoint_slices = topology.services, topology.endpoint_slices
        self._kept: list[Closable] = []
        self._undo: list[Callable[[], object]] = []
        self.after_change: list[Callable[[], None]] = []
        self.trials, self.is_altered = 0, False
        self.stopped: tuple[str, ...] = ()
        self.has_others, self.others = False, frozenset[Ends]()
        self.hosts: dict[str, RunningHost] = {}
        try:
            self._build(self.changes[0])
        except OSError as error:
            self.close()
            raise MachineError.of(error) or LabError(f"the kernel refused to build {topology.name}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _build(self, change: NodeChange) -> None:
        for number, host in enumerate(self.topology.hosts):
            running = self.hosts[host.name] = RunningHost(host, number)
            running.namespace.set_sysctls(_sysctls(host, self.families))
        self._programs: list[ProgramNode] = []
        self._proxies = [self._proxy(node, change) for node in self.topology.nodes]
        build_links(self.topology, self.hosts, self.families, self.keep)
        for program in self._programs:
            program.start()
        for proxy in self._proxies:
            proxy.finish()
        for host in self.topology.hosts:
            set_own_sysctls(self.hosts[host.name])

    def _proxy(self, node: Host, change: NodeChange) -> KubeProxy | GivenNode | ProgramNode:
        running = self.hosts[node.name]
        if node.program is not None:
            from lab.fabric.program_node import ProgramNode

            program = self.keep(ProgramNode(running, self.topology, self.families, change))
            self._programs.append(program)
            return program
        if node.given is not None:
            return GivenNode(running, node.given, self.families, _additions(self, node, change), change)
        return KubeProxy(running, node_proxy(self.topology, node, self.families, change))

    def sync(
        self, services: tuple[Service, ...], slices: tuple[EndpointSlice, ...], *, clean_conntrack: bool = True
    ) -> None:
        """Have every node's kube-proxy serve other Services and EndpointSlices from now on, but those that are stopped.

        Each changes only what differs (see :meth:`lab.fabric.kube_proxy.KubeProxy.sync`), one node after the other.
        Where a node refuses, the nodes before it are taken back to what they had.

        :param clean_conntrack: delete entries of UDP flows that went stale, as kube-proxy does.
        :raises InputError: for services that claim the same address and port.
        :raises LabError: the kernel refused the change.
        """
        self._begin_change()
        before, self.services, self.endpoint_slices = (self.services, self.endpoint_slices), services, slices
        try:
            for proxy in self._at_work():
                proxy.sync(services, slices, clean_conntrack=clean_conntrack)
        except LabError:
            self.services, self.endpoint_slices = before
            for proxy in self._at_work():
                proxy.sync(*before, clean_conntrack=proxy in self._programs)
            raise
        for listener in self.after_change:
            listener()

    def full_sync(self, service_cidrs: Sequence[IPNetwork]) -> None:
        """Have every node's kube-proxy write all its rules anew, with the ServiceCIDRs that it has heard of by now.

        :raises LabError: the kernel refused them; the rules are what they were.
        """
        self._begin_change()
        for proxy in self._at_work():
            proxy.full_sync(self.services, self.endpoint_slices, service_cidrs)

    def _begin_change(self) -> None:
        for node in self.topology.nodes:
            self.hosts[node.name].begin_change()
            self.hosts[node.name].is_changed = True

    def restart_kube_proxies(self) -> None:
        """Have every node's kube-proxy start anew, with the Services and EndpointSlices that there are.

        :raises LabError: the kernel refused to delete entries.
        """
        for node in self.topology.nodes:
            self.restart_kube_proxy(node.name)

    def stop_kube_proxy(self, node: str) -> None:
        """Stop a node's kube-proxy: its rules stay as they are, and no change comes to them until it is started.

        :raises InputError: there is no such node, its rules were given, or it is stopped already.
        """
        proxy = self._proxy_of(node)
        if node in self.stopped:
            raise InputError(f"the kube-proxy of {node} is stopped already")
        proxy.stop()
        self.stopped = (*self.stopped, node)

    def start_kube_proxy(self, node: str) -> int | None:
        """Start a node's kube-proxy that is stopped, and return as :meth:`restart_kube_proxy` does.

        :raises InputError: there is no such node, or it is not stopped.
        :raises LabError: the kernel refused the change; it is stopped still.
        """
        proxy = self._proxy_of(node)
        if node not in self.stopped:
            raise InputError(f"the kube-proxy of {node} is running", cure="restart it, or stop it first")
        self._begin_change()
        deleted = proxy.resume(self.services, self.endpoint_slices)
        self.stopped = tuple(one for one in self.stopped if one != node)
        return deleted

    def restart_kube_proxy(self, node: str) -> int | None:
        """Have a node's kube-proxy start anew, or start, and return how many conntrack entries it has deleted.

        None where it is a program, which does not say.

        :raises InputError: there is no such node, or its rules were given.
        :raises LabError: the kernel refused to delete entries.
        """
        return self.start_kube_proxy(node) if node in self.stopped else self._proxy_of(node).restart()

    def _at_work(self) -> list[KubeProxy | GivenNode | ProgramNode]:
        return [self._proxy_of(node.name) for node in self.topology.nodes if node.name not in self.stopped]

    def _proxy_of(self, node: str) -> KubeProxy | GivenNode | ProgramNode:
        found = {host.name: proxy for host, proxy in zip(self.topology.nodes, self._proxies, strict=True)}
        if node not in found:
            raise InputError(f"there is no node {node!r}", cure=nearest(node, found))
        return found[node]

    @property
    def current(self) -> Topology:
        """The topology with the Services and EndpointSlices of now."""
        return replace(self.topology, services=self.services, endpoint_slices=self.endpoint_slices)

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints of the Services: to be added, removed and drained while traffic runs."""
        return Endpoints(self)

    @property
    def served(self) -> Services:
        """The Services: to be added, applied and removed while traffic runs."""
        return Services(self)

    def injector(self, host: str, destination: str) -> Injector:
        """Make a socket that sends ready packets to an address from a host, by the link that its own stack would take.

        :raises LabError: the host has no route there.
        """
        found = step(self.topology, host, destination)
        if found is None or found.to is None:
            raise LabError(f"{host} has no route to {destination}")
        macs = (self.hosts[one.host].device(one).mac for one in (found.to, found.end))
        return self.keep(Injector(self.hosts[host].namespace, found.end.interface, b"".join(macs)))

    def keep(self, thing: Kept) -> Kept:
        """Close ``thing`` together with the lab."""
        self._kept.append(thing)
        return thing

    @contextmanager
    def lent(self) -> Iterator[Self]:
        """Lend the lab to one trial of several, and take back what it has changed.

        What is kept meanwhile is closed behind it, and what the nodes serve is what it was before. Conntrack's entries
        are deleted, unless others have some.
        """
        mine, self._kept = self._kept, []
        served = self.services, self.endpoint_slices
        try:
            yield self
        finally:
            done, self._kept = self._kept, mine
            close_all(reversed(done))
            for step in reversed(self._undo):
                step()
            self._undo = []
            if (self.services, self.endpoint_slices) != served:
                self.sync(*served)
            for node in self.topology.nodes if not self.has_others else ():
                with closing(ConntrackTable(self.hosts[node.name].namespace)) as table:
                    table.flush()
            self.trials += 1

    def undo(self, step: Callable[[], object]) -> None:
        """Take a step when the trial that has the lab gives it back; where the lab ends with the trial, never."""
        self._undo.append(step)

    def amend(self, change: NodeChange) -> None:
        """Have the nodes whose rules were given what another fix changes as well.

        :raises InputError: the rules were refused.
        """
        self.changes.append(change)
        for proxy in self._proxies:
            if isinstance(proxy, GivenNode):
                proxy.amend(_additions(self, proxy.node.host, change), change)

    def close(self) -> None:
        """End the lab: everything is given up at once, and the kernel clears it away."""
        parts = [*self._kept, *(part for running in self.hosts.values() for part in running.parts())]
        self._kept = []
        self.hosts = {}
        if parts:
            close_all(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def lent_beside_others(lab: Lab, *, traced: bool = False, subject: Ends | None = None) -> Iterator[Lab]:
    """Lend a lab to one trial beside whoever else uses it, whose entries and counters stay.

    :param traced: as of the lab, for as long as it is lent.
    :param subject: source and destination of the connection of others' that the trial is about.
    """
    # What was counted before is not the trial's: no standing lab is a fresh one.
    lab.trials, lab.has_others, lab.traced = max(1, lab.trials), True, traced
    lab.others = connections(lab.hosts.values(), subject)
    for running in lab.hosts.values():
        running.is_changed = True  # by any program that somebody has run there
    try:
        with lab.lent():
            yield lab
    finally:
        lab.has_others, lab.others, lab.traced = False, frozenset(), False


def _additions(lab: Lab, node: Host, change: NodeChange) -> tuple[str, ...]:
    mode = node.proxy_mode or ProxyMode.IPTABLES
    return tuple(addition(lab.topology, family, change, mode) for family in lab.families)


def _sysctls(host: Host, families: Sequence[Family]) -> dict[str, str | int]:
    values: dict[str, str | int] = {
        # A fresh namespace copies these from the machine; the lab must not depend on them.
        "net/ipv4/conf/all/rp_filter": 0,
        "net/ipv4/conf/default/rp_filter": 0,
        "net/ipv4/ip_forward": int(host.forwarding),
        # A program's socket with undelivered data outlives it, and holds the namespace: 1.6 s, and 106 s otherwise.
        "net/ipv4/tcp_orphan_retries": 1,
    }
    has_ipv6 = Path("/proc/sys/net/ipv6").exists()
    if Family.IPV6 in families:
        if not has_ipv6:
            raise MissingError("the kernel has no IPv6", "boot without ipv6.disable=1, or use --family ipv4")
        values |= {
            "net/ipv6/conf/all/forwarding": int(host.forwarding),
            # No link-local address and no duplicate address detection: addresses work at once.
            "net/ipv6/conf/default/addr_gen_mode": 1,
            "net/ipv6/conf/default/accept_dad": 0,
            "net/ipv6/conf/default/disable_ipv6": 0,
        }
    elif has_ipv6:
        values["net/ipv6/conf/default/disable_ipv6"] = 1
    return values
