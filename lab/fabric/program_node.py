# SPDX-License-Identifier: MIT
"""A node of a lab whose rules a kube-proxy program of the user's own writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lab.conntrack.witness import load_conntrack
from lab.errors import MissingError
from lab.fabric.own_fix import run_change, set_sysctls
from lab.fabric.program import Place, RunningKubeProxy
from lab.kubeapi.objects import changing, lasting
from lab.kubeproxy.jumps import kubelets
from lab.kubeproxy.nftables import table_of
from lab.netns import ProgramError
from lab.topology.kube_proxy import addition, proxy_options
from lab.topology.routes import node_address
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.topology.model import Topology
    from lab.topology.node_change import NodeChange
    from lab.topology.values import IPNetwork

_RULE: Final = re.compile(r"-([AI]) (\S+) (?:\d+ )?(.*)")


class ProgramNode:
    """A running node with a kube-proxy program; made with its API served, as :class:`KubeProxy` is with its rules.

    :meth:`start` starts the program when the links are there, and :meth:`finish` waits until it has written its rules.

    :raises InputError: the program has no such mode.
    :raises MissingError: a program that it calls is not installed.
    """

    slow_to_close = True

    def __init__(self, node: RunningHost, topology: Topology, families: Sequence[Family], change: NodeChange) -> None:
        host = node.host
        assert host.program is not None
        self._node = node
        self._mode = host.proxy_mode or ProxyMode.IPTABLES
        self._families, self._change, self._topology = tuple(families), change, topology
        self._additions = {family: addition(topology, family, change, self._mode) for family in families}
        for family in families:
            proxy_options(topology, host, family, change).require_mode(self._mode)
        load_conntrack(node.nft)
        set_sysctls(node.namespace, change)
        if self._mode is ProxyMode.IPTABLES:
            self._load_kubelets()
        own = node_address(topology, node.name, families[0])
        place = Place(
            node.namespace, node.nft, node.name, self._mode, host.backend, self._families, str(own or ""), host.settings
        )
        objects = lasting(topology, families, topology.service_cidrs)
        objects |= changing(topology.services, topology.endpoint_slices)
        self._kube_proxy = RunningKubeProxy(host.program, place, objects)

    def _load_kubelets(self) -> None:
        """Load the chains that the kubelet of that time makes, without which rules of kube-proxy are refused."""
        for family in self._families:
            options = proxy_options(self._topology, self._node.host, family, self._change)
            if text := kubelets(options):
                self._node.xtables.start_restore(family.version, text).finish()

    def start(self) -> None:
        """Start the program."""
        self._kube_proxy.start()

    def finish(self) -> None:
        """Wait until the rules are written, and add what a fix adds.

        :raises LabError: the program ended, or cannot write them; its last words.
        """
        self._kube_proxy.settle()
        self._add()
        run_change(self._node, self._change, self._families)
        self._node.rules += self._written()

    def sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], *, clean_conntrack: bool = True
    ) -> None:
        """Change the objects that the program watches, and wait until it has written what that makes of its rules.

        :raises MissingError: it is to leave conntrack's entries alone, which nobody can tell it.
        :raises LabError: it ended, or cannot write them; its last words.
        """
        if not clean_conntrack:
            what = "a kube-proxy program deletes conntrack entries as it will"
            raise MissingError(what, "let the lab write the rules, where they are to stay")
        if self._kube_proxy.change(changing(services, slices)) and self._mode is ProxyMode.IPTABLES:
            self._add()  # it writes chains anew, and what a fix has added there is gone

    def full_sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], service_cidrs: Sequence[IPNetwork]
    ) -> None:
        """Do the same with other ServiceCIDRs, and start the program anew: with that it writes everything.

        :raises LabError: as for :meth:`sync`.
        """
        self._kube_proxy.change(changing(services, slices) | lasting(self._topology, self._families, service_cidrs))
        self.restart()

    def restart(self) -> None:
        """End the program and start it anew, by the rules that it has left.

        :raises LabError: as for :meth:`sync`.
        """
        self._kube_proxy.restart()
        self._add()

    def stop(self) -> None:
        """End the program; its rules stay."""
        self._kube_proxy.stop()

    def resume(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> None:
        """Start the program that was stopped, with other objects to watch.

        :raises LabError: as for :meth:`sync`.
        """
        self._kube_proxy.restart(changing(services, slices))
        self._add()

    def close(self) -> None:
        """End the program, and its API."""
        self._kube_proxy.close()

    def _add(self) -> None:
        """Add what a fix adds, where it is not."""
        for family, added in self._additions.items():
            if not added:
                continue
            if self._mode is ProxyMode.NFTABLES:
                self._node.nft.run(added)
            elif lacking := self._lacking(family, added):
                self._node.xtables.start_restore(family.version, lacking).finish()

    def _lacking(self, family: Family, added: str) -> str:
        """Return an input of iptables-restore without the rules that there are."""
        lines, table = [], ""
        program = f"{family.iptables}-{self._node.host.backend}"
        for line in added.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif rule := _RULE.fullmatch(line):
                try:
                    self._node.run(program, "-t", table, "-C", rule[2], *rule[3].split())
                except ProgramError:
                    lines.append(line)
                continue
            lines.append(line)
        text = "\n".join((*lines, ""))
        return text if any(line.startswith("-") for line in lines) else ""

    def _written(self) -> list[str]:
        """Return the rules that there are now."""
        if self._mode is ProxyMode.NFTABLES:
            return [self._node.nft.run(f"list table {table_of(family)}") for family in self._families]
        return [self._node.xtables.save(family.version) for family in self._families]
