# SPDX-License-Identifier: MIT
"""A running lab in a test's hands: run programs and steps, look inside. What the fixture ``lab_running`` gives."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from lab.conntrack.flows import Flows
from lab.errors import InputError, LabError, MissingError, nearest
from lab.evidence.timeline import Timeline
from lab.fabric.endpoints import Endpoints
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.fabric.services import Services
from lab.fixes import Fix
from lab.kubeproxy.nftables import table_of
from lab.netns.program import find
from lab.plugin.host_rules import HostRules
from lab.plugin.serving import Serving
from lab.scenario import ConnectionScenario
from lab.scenario.roles import named_ports, roles_in
from lab.topology.kube_proxy import node_release
from lab.topology.model import Topology
from lab.trial.runner import carry_out
from lab.verdict import Verdict
from lab.vocabulary import Family, ProxyMode

_COUNTED: Final = re.compile(r"^\[[1-9][0-9]*:[0-9]+\] -A |\bcounter packets [1-9]")


class RunningLab:
    """What the fixture ``lab_running`` gives: a running lab, with what a test needs of it.

    :ivar topology: what was built.
    :ivar family: the address family that :meth:`try_steps` talks in: the one asked for, else ipv4.
    :ivar fix: the change that its nodes have.
    :ivar service: the Service that is asked then, as :func:`lab.scenario.roles.service_port` knows it; None for
        the first.
    :param served: servers answer at all endpoints, and at the other pods' same ports, as those of `lab up` do.
    :ivar timeline: what was seen in :meth:`try_steps`.
    :raises InputError: the topology has no such Service, or nothing that could be asked of it.
    """

    def __init__(
        self, topology: Topology, family: Family | None, fix: Fix, service: str | None = None, *, served: bool = False
    ) -> None:
        self.topology = topology
        self.family = family or Family.IPV4
        if service is not None:
            named_ports(topology, self.family, service)  # refused here, whether anything is asked or not
        self.fix = fix
        self.service = service
        self.timeline: Timeline | None = None
        self._lab = Lab(topology, family=family, change=fix.change)
        self._used = False
        try:
            self._serving = Serving(self._lab) if served else None
        except BaseException:
            self._lab.close()
            raise
        self._lab.after_change = [self._serving.follow] if self._serving else []

    def stop_servers(self) -> None:
        """End the servers at the endpoints, where a test has its own: nobody listens there from then on."""
        self._lab.after_change = []
        if self._serving is not None:
            self._serving.close()
        self._serving = None

    @property
    def hosts(self) -> Mapping[str, RunningHost]:
        """The running hosts by name, for what has no word here: their namespaces, nftables, iptables."""
        return self._lab.hosts

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints of the Services: to be added, removed and drained while traffic runs."""
        return self._lab.endpoints

    @property
    def services(self) -> Services:
        """The Services: to be added, applied and removed, as text too, while traffic runs."""
        return self._lab.served

    def stop_kube_proxy(self, node: str) -> None:
        """Stop a node's kube-proxy: its rules follow no change from then on.

        :raises InputError: there is no such node, or it is stopped already.
        """
        self._lab.stop_kube_proxy(node)

    def start_kube_proxy(self, node: str) -> None:
        """Start a node's kube-proxy that was stopped: it takes in what has changed.

        :raises InputError: there is no such node, or it is not stopped.
        """
        self._lab.start_kube_proxy(node)

    def restart_kube_proxy(self, node: str) -> None:
        """Restart a node's kube-proxy: it deletes UDP entries as its release does.

        :raises InputError: there is no such node.
        """
        self._lab.restart_kube_proxy(node)

    def run(self, host: str, *command: str, text: str = "") -> str:
        """Run a program on a host and return what it prints.

        :param text: its standard input.
        :raises InputError: the topology has no such host.
        :raises ProgramError: its exit code was not 0.
        """
        return self._host(host).run(*command, text=text)

    def _host(self, name: str) -> RunningHost:
        if name not in self.hosts:
            raise InputError(f"there is no host {name!r}", cure=nearest(name, self.hosts))
        return self.hosts[name]

    def conntrack(self, host: str) -> Flows:
        """Return the conntrack entries of a host: to be iterated, chosen from, created, deleted and flushed.

        :raises InputError: the topology has no such host.
        """
        return Flows(self._host(host).namespace)

    def rules(self, host: str) -> HostRules:
        """Return what loads rules of one's own on a host.

        :raises InputError: the topology has no such host.
        """
        return HostRules(self._host(host), self._lab.families)

    def namespace(self, host: str) -> Path:
        """Return the path of a host's network namespace, good for as long as the lab and this process live.

        As ``CNI_NETNS`` for a CNI plugin, or for `nsenter --net=PATH`.

        :raises InputError: the topology has no such host.
        """
        return Path(f"/proc/{os.getpid()}/fd/{self._host(host).namespace.fileno()}")

    def try_steps(self, steps: Callable[[ConnectionScenario], Awaitable[None]]) -> Verdict:
        """Connect through the lab, disturb the connection as ``steps`` says, and decide what became of it.

        Once a lab, for the instruments are its own. What was seen is in :attr:`timeline`, also on failure.

        :param steps: as a case's: an async function of a :class:`lab.scenario.ConnectionScenario`.
        :raises LabError: the topology has no roles for it, or something was waited for in vain.
        """

        async def observe() -> Verdict:
            scenario = ConnectionScenario(self._lab, roles, self.family)
            return scenario.decide(await carry_out(partial(steps, scenario), scenario, self.keep))

        roles = roles_in(self.topology, self.family, self.service)
        self._once()
        self.stop_servers()  # the steps have their own
        return asyncio.run(observe())

    def use(self) -> Lab:
        """Return the lab itself, for the one trial that it is good for.

        :raises LabError: it has been used.
        """
        self._once()
        return self._lab

    def keep(self, timeline: Timeline) -> None:
        """Keep what was seen, for the report of a failure."""
        self.timeline = timeline

    def _once(self) -> None:
        if self._used:
            raise LabError("this lab was used already: a lab holds one trial, take a fresh one")
        self._used = True

    def describe(self) -> str:
        """Return a text that lists the hosts with their links and addresses, and what the nodes are."""
        width = max(len(host.name) for host in self.topology.hosts)
        lines = []
        for host in self.topology.hosts:
            parts = []
            for end in self.topology.ends(host.name):
                built = (str(own) for own in end.addresses if Family.of(own) in self._lab.families)
                parts.append(" ".join((end.interface, *built)))
            if host.proxy_mode is not None:
                version = node_release(host).label
                backend = f", backend {host.backend}" if host.proxy_mode is ProxyMode.IPTABLES else ""
                program = f" by {host.program.label}" if host.program else ""
                parts.append(f"kube-proxy {version}{program} in {host.proxy_mode} mode{backend}, fix {self.fix.name}")
            lines.append(f"{host.name:{width}}  {'; '.join(parts)}")
        return "\n".join(lines)

    def ruleset(self, *, every: bool = True) -> str:
        """Return the nodes' rules as the kernel has them now, with its counters where it counts.

        :param every: else those alone that packets came to, and how many there are besides.
        """
        texts = []
        for node in self.topology.nodes:
            running = self.hosts[node.name]
            for family in self._lab.families:
                if node.proxy_mode is ProxyMode.NFTABLES:
                    text = running.nft.run(f"list table {table_of(family)}")
                else:
                    text = running.xtables.save(family.version)
                lines = text.rstrip().splitlines()
                texts += [f"# {node.name}: {family}", *(lines if every else _met(lines))]
        return "\n".join(texts)

    def keep_standing(self, called: str) -> tuple[str, list[str]]:
        """Have the lab stay, and return its name and its hosts.

        :param called: what to name it after.
        :raises LabError: it cannot stand.
        """
        from lab.standing.keeper import keep

        kept = keep(self._lab, called)
        return kept.name, [host.name for host in kept.hosts]

    def shell(self) -> None:
        """Open a shell on the first node, or on the first host where there is none, and wait for its end."""
        host = next(iter(self.topology.nodes or self.topology.hosts))
        print(f"\na shell on {host.name}; leave it to go on. The way to each host:")
        width = max(len(name) for name in self.hosts)
        for name in self.hosts:
            print(f"{name:{width}}  nsenter --net={self.namespace(name)}", flush=True)
        chosen = "/bin/sh"
        try:
            chosen = find(os.environ.get("SHELL") or chosen)
        except MissingError as error:
            print(f"SHELL: {error}; until then {chosen}", flush=True)
        with self.hosts[host.name].namespace.entered():
            shell = subprocess.Popen([chosen])
        shell.wait()

    def close(self) -> None:
        """End the lab."""
        self.stop_servers()
        self._lab.close()


def _met(lines: Sequence[str]) -> Iterator[str]:
    """Yield the rules that packets came to, as ``iptables-save -c`` or ``nft list`` writes them, and count the rest."""
    met = [line for line in lines if _COUNTED.search(line)]
    yield from met
    rest = sum(line.lstrip().startswith(("[0:0] -A", "-A")) for line in lines)
    yield (
        f"and {rest} rules that no packet came to (-vv shows them)" if rest else f"{len(lines)} lines (-vv shows them)"
    )
