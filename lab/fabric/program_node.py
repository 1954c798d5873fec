# SPDX-License-Identifier: MIT
"""A node whose rules a kube-proxy program writes: the user's own, confined, with the API that it asks served to it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.conntrack.witness import load_conntrack
from lab.errors import InputError, LabError, warn
from lab.fabric.given import run_change
from lab.fabric.program_progress import Progress, progress
from lab.kubeapi.objects import changing, lasting
from lab.kubeapi.server import ApiServer
from lab.kubeapi.store import Store
from lab.kubeproxy import find_release
from lab.kubeproxy.command import FILE, configuration, configured, flags
from lab.kubeproxy.nftables import table_of
from lab.kubeproxy.program import ProxyProgram, version_said
from lab.netns import Namespace, ProgramError
from lab.netns.confined import OWN, ConfinedProgram
from lab.netns.program import find
from lab.topology.kube_proxy import addition
from lab.topology.routes import node_address
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.topology.model import IPNetwork, Topology
    from lab.topology.node_change import NodeChange

#: Seconds for a program to say its version, and to write what it has heard of. On a busy machine it starts in two.
_ANSWER: Final = 20.0
_PATIENCE: Final = 60.0
_LOOK: Final = 0.005  # between two looks; what is waited for meanwhile is its end
_WORDS: Final = 12  # lines of its log in an error
_DUAL: Final = 21  # v1.21, from which on a program serves both families
_WITHOUT_CONNTRACK: Final = 32  # v1.32, which deletes entries itself
_RULE: Final = re.compile(r"-([AI]) (\S+) (?:\d+ )?(.*)")


def ask_version(path: str) -> str:
    """Ask a program for its version, confined in a namespace of its own.

    :raises InputError: it cannot be started, does not end, or is no kube-proxy.
    """
    with closing(Namespace.create()) as namespace, closing(_started(namespace, (path, "--version"))) as program:
        if not program.ends_within(_ANSWER):
            raise InputError(f"{path} is no kube-proxy: asked for --version it did not end within {_ANSWER:.0f} s")
        if program.exit_code:
            raise InputError(f"{path}: --version ended with exit code {program.exit_code}: {_last(program.words)}")
        return version_said(path, program.words)


def _started(
    namespace: Namespace,
    command: Sequence[str],
    files: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> ConfinedProgram:
    """Start a program, by a path that is right wherever it is started."""
    path = Path(command[0])
    if not path.is_file():
        raise InputError(f"there is no program {command[0]}", cure="give the path of a kube-proxy")
    return ConfinedProgram(namespace, (str(path.absolute()), *command[1:]), files=files, links=links)


class ProgramNode:
    """A running node with a kube-proxy program; made with its API served, as :class:`KubeProxy` is with its rules.

    :meth:`start` starts the program when the links are there, and :meth:`finish` waits until it has written its rules.

    :param additions: what a fix adds to these, by family.
    :raises MissingError: a program that it calls is not installed.
    """

    slow_to_close = True

    def __init__(
        self, node: RunningHost, topology: Topology, families: Sequence[Family], change: NodeChange
    ) -> None:
        assert node.host.program is not None
        self._node, self._program = node, node.host.program
        self._mode = node.host.proxy_mode or ProxyMode.IPTABLES
        self._families, self._change, self._topology = families, change, topology
        self._additions = {family: addition(topology, family, change, self._mode) for family in families}
        self._links = _links(node.host.backend, self._mode)
        _tell_of(self._program, families)
        load_conntrack(node.nft)
        node.namespace.set_sysctls(dict(change.sysctls))
        self._store = Store()
        self._store.put(lasting(topology, families, topology.service_cidrs))
        self._store.put(changing(topology.services, topology.endpoint_slices))
        self._server = ApiServer(node.namespace, self._store, self._program.version)
        self._running: ConfinedProgram | None = None

    def start(self) -> None:
        """Start the program; the one whose rules it is to find is started first, and ended when it has written them."""
        if self._program.over is not None:
            self._start(self._program.over)
            self._settle()
            self._end()
        self._start(self._program)

    def finish(self) -> None:
        """Wait until the rules are written, and add what a fix adds.

        :raises LabError: the program ended, or cannot write them; its last words.
        """
        self._settle()
        self._add()
        run_change(self._node, self._change, self._families)
        self._node.rules += self._written()

    def sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], *, clean_conntrack: bool = True
    ) -> None:
        """Change the objects that the program watches, and wait until it has written what that makes of its rules.

        :raises InputError: it is to leave conntrack alone, which it is not told.
        :raises LabError: it ended, or cannot write them; its last words.
        """
        if not clean_conntrack:
            cure = "leave --keep-conntrack away, or let the lab write the rules"
            raise InputError("a kube-proxy program deletes conntrack entries as it will", cure=cure)
        self._change_objects(changing(services, slices))

    def full_sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], service_cidrs: Sequence[IPNetwork]
    ) -> None:
        """Do the same with other ServiceCIDRs, and start the program anew: with that it writes everything.

        :raises LabError: as for :meth:`sync`.
        """
        self._change_objects({**changing(services, slices), **lasting(self._topology, self._families, service_cidrs)})
        self.restart()

    def restart(self) -> None:
        """End the program and start it anew, by the rules that it has left.

        :raises LabError: as for :meth:`sync`.
        """
        self._end()
        self._start(self._program)
        self._settle()
        self._add()

    def close(self) -> None:
        """End the program, and its API."""
        self._end()
        self._server.close()

    def _change_objects(self, wanted: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        changed: Counter[str] = self._store.put(wanted)
        if changed:
            self._settle(progress(self._node.namespace))
            if self._mode is ProxyMode.IPTABLES:
                self._add()  # it writes chains anew, and what a fix has added there is gone

    def _start(self, program: ProxyProgram) -> None:
        node, host = self._node.name, self._node.host
        url, bind = self._server.url, self._bind(program)
        if program.document is None:
            command = flags(program, self._mode, node, host.settings, url, bind)
            files = {}
        else:
            document = configuration(program, self._mode, node, host.settings, bind)
            command, files = configured(url, node, str(OWN)), {FILE: json.dumps(document)}
        self._running = _started(self._node.namespace, (program.path, *command), files, self._links)

    def _bind(self, program: ProxyProgram) -> str | None:
        """Return by which address a program of one family knows that it is IPv6."""
        if find_release(program.version).minor >= _DUAL or self._families[0] is Family.IPV4:
            return None
        return str(node_address(self._topology, self._node.name, Family.IPV6) or "::")

    def _end(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _settle(self, before: Progress | None = None) -> None:
        """Wait until the program has heard of everything, and written it.

        It is done when it says so and twice in a row waits for something from outside: a sync that has just begun shows
        in no number of its metrics, but keeps a thread running or has started iptables or nft.

        :param before: how far it was.
        """
        running = self._running
        assert running is not None
        still: Progress | None = None
        looks = int(_PATIENCE / _LOOK)
        for _ in range(looks):
            if running.ends_within(_LOOK):
                raise LabError(f"{self._program.path} ended: {_last(running.words)}")
            now = progress(self._node.namespace)
            if now is not None and now.failures > (before.failures if before else 0):
                raise LabError(f"{self._program.path} cannot write its rules: {_last(running.words)}")
            if now is None or not now.done or not self._store.is_delivered:
                still = None
            elif running.is_idle:
                if now == still:
                    return
                still = now
            else:
                still = None
        words = f"{self._program.path} has not written its rules within {_PATIENCE:.0f} s"
        raise LabError(f"{words}: {_last(running.words)}")

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
        program = f"{'iptables' if family is Family.IPV4 else 'ip6tables'}-{self._node.host.backend}"
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


def _links(backend: str, mode: ProxyMode) -> dict[str, str]:
    """Return by which names a program finds iptables' programs of a backend.

    :raises MissingError: they are not installed.
    """
    if mode is ProxyMode.NFTABLES:
        find("nft")
    links = {}
    for family in ("iptables", "ip6tables"):
        for verb in ("-restore", "-save", ""):
            if verb:
                place = Path(find(f"{family}-{backend}{verb}"))
            links[f"{family}{verb}"] = str(place.with_name(f"{family}-{backend}{verb}"))
    return links


def _tell_of(program: ProxyProgram, families: Sequence[Family]) -> None:
    """Warn of what a program will not do here."""
    release = find_release(program.version)
    if len(families) > 1 and release.minor < _DUAL:
        warn(f"{program.path}: kube-proxy {release.name} serves one address family: {families[0]}")
    if release.minor < _WITHOUT_CONNTRACK:
        from shutil import which

        if which("conntrack") is None and which("/usr/sbin/conntrack") is None:
            words = "deletes UDP flows' entries by the program conntrack, which is not installed"
            warn(f"{program.path}: kube-proxy {release.name} {words}: entries go stale here")


def _last(words: str) -> str:
    """Return the last lines that a program has printed."""
    lines = words.strip().splitlines()
    return "\n".join(lines[-_WORDS:]) if lines else "it has printed nothing"
