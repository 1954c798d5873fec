# SPDX-License-Identifier: MIT
"""A kube-proxy program at work in a namespace: confined, with the API that it asks served to it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError, LabError, MissingError, warn
from lab.fabric.program_progress import Progress, progress
from lab.kubeapi import TABLE
from lab.kubeapi.server import ApiServer
from lab.kubeapi.store import Store
from lab.kubeproxy.command import FILE, configuration, configured, flags
from lab.kubeproxy.program import ProxyProgram, version_said
from lab.kubeproxy.releases import find_release
from lab.netns import Namespace, Nft, interrupt
from lab.netns.confined import OWN, ConfinedProgram
from lab.netns.program import find
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubeapi.resources import Object

#: Seconds for a program to say its version, and to write what it has heard of. On a busy machine it starts in two.
_ANSWER: Final = 20.0
_PATIENCE: Final = 60.0
_LOOK: Final = 0.005  # between two looks; what is waited for meanwhile is its end
_AGAIN: Final = 0.05  # where it has nothing to do and is not done
_WORDS: Final = 12  # lines of its log in an error
_FATAL: Final = re.compile(r"F\d{4} |panic: |fatal error: |Error: ")  # klog's and Go's own
_DUAL: Final = 21  # v1.21, from which on a program serves both families
_WITHOUT_CONNTRACK: Final = 32  # v1.32, which deletes entries itself

# What a program and the lab say to each other is none of a node's traffic: without this it would be among the entries
# of the node's conntrack, and what is left of a connection that was cut counts as INVALID there.
_UNTRACKED: Final = """table inet {table} {{
chain prerouting {{
type filter hook prerouting priority raw; policy accept;
iif lo tcp dport {{ {ports} }} notrack
iif lo tcp sport {{ {ports} }} notrack
}}
chain output {{
type filter hook output priority raw; policy accept;
oif lo tcp dport {{ {ports} }} notrack
oif lo tcp sport {{ {ports} }} notrack
}}
}}
"""


def ask_version(path: str) -> str:
    """Ask a program for its version, confined in a namespace of its own.

    :raises InputError: it cannot be started, does not end, or is no kube-proxy.
    """
    with closing(Namespace.create()) as namespace, closing(_started(namespace, (path, "--version"))) as program:
        if not program.ends_within(_ANSWER):
            raise InputError(f"{path} is no kube-proxy: asked for --version it did not end within {_ANSWER:.0f} s")
        if program.exit_code:
            said = f"asked for --version it ended with exit code {program.exit_code}: {_last(program.words)}"
            raise InputError(f"{path} is no kube-proxy: {said}")
        return version_said(path, program.words)


def _started(
    namespace: Namespace,
    command: Sequence[str],
    files: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> ConfinedProgram:
    """Start a program.

    :raises InputError: it is not there.
    """
    path = Path(command[0])
    if not path.is_file():
        raise InputError(f"there is no program {path}", cure="give the path of a kube-proxy")
    if not os.access(path, os.X_OK):
        raise InputError(f"{path} cannot be executed", cure=f"`chmod +x {path}`, if it is a kube-proxy")
    return ConfinedProgram(namespace, command, files=files, links=links)


@dataclass(frozen=True)
class Place:
    """Where a program works.

    :param nft: of the namespace.
    :param node: the node's name.
    :param backend: of iptables, by which its rules are loaded.
    :param families: which the node has, the one that it is known by first.
    :param address: the node's own of that family.
    :param settings: of kube-proxy, by field.
    """

    namespace: Namespace
    nft: Nft
    node: str
    mode: ProxyMode
    backend: Backend
    families: tuple[Family, ...]
    address: str
    settings: Mapping[str, Any] = field(default_factory=dict)


class RunningKubeProxy:
    """A program and its API, from when it is started until :meth:`close`.

    The namespace's loopback must be up when it is started.

    :param objects: what the API serves, by kind.
    :raises MissingError: a program that it calls is not installed.
    """

    def __init__(self, program: ProxyProgram, place: Place, objects: Mapping[str, Sequence[Object]]) -> None:
        self._program, self._place = program, place
        self._links = _links(place)
        _tell_of(program, place.families)
        self._store = Store()
        self._store.put(objects)
        self._server = ApiServer(place.namespace, self._store, program.version)
        place.nft.run(_UNTRACKED.format(table=TABLE, ports=f"{self._server.port}, 10249, 10256"))
        self._running: ConfinedProgram | None = None
        self._has_written = False

    def start(self) -> None:
        """Start the program; the one whose rules it is to find is started first, and ended when it has written them."""
        if self._program.over is not None:
            self._start(self._program.over)
            self.settle()
            self._end()
        self._start(self._program)

    def stop(self) -> None:
        """End the program; its rules stay."""
        self._end()

    def restart(self, objects: Mapping[str, Sequence[Object]] | None = None) -> None:
        """End the program, start it anew by the rules that it has left, and wait until it has written its own.

        :param objects: what else the API serves from now on, by kind.
        :raises LabError: as for :meth:`settle`.
        """
        self._end()
        self._store.put(objects or {})
        self._start(self._program)
        self.settle()

    def change(self, objects: Mapping[str, Sequence[Object]]) -> bool:
        """Have other objects of these kinds, and wait until the program has written what that makes of its rules.

        :returns: whether anything is another than it was.
        :raises LabError: as for :meth:`settle`.
        """
        before = progress(self._place.namespace)
        if not self._store.put(objects):
            return False
        self.settle(before)
        return True

    def settle(self, before: Progress | None = None) -> None:
        """Wait until the program has heard of everything, and written it.

        It is done when it says so and twice in a row waits for something from outside: a sync that has just begun shows
        in no number of its metrics, but keeps a thread running or has started iptables or nft.

        :param before: how far it was.
        :raises InputError: it ended, or cannot write its rules, and has never written any; its last words.
        :raises LabError: likewise, when it had written some.
        """
        running = self._running
        assert running is not None
        still: Progress | None = None
        end = time.monotonic() + _PATIENCE
        pause = _LOOK
        while time.monotonic() < end:
            with interrupt.ends_waiting():
                has_ended = running.ends_within(pause)
            if has_ended:
                raise self._failed("ended")
            if not running.is_idle or not self._store.is_delivered:
                still, pause = None, _LOOK
                continue
            now = progress(self._place.namespace)
            if now is not None and now.failures > (before.failures if before else 0):
                raise self._failed("cannot write its rules")
            if now is not None and now.done and running.is_idle:
                if now == still:
                    self._has_written = True
                    return
                still, pause = now, _LOOK
            else:  # it waits for its next turn, and each question is packets on the node
                still, pause = None, _AGAIN
        raise self._failed(f"has not written its rules within {_PATIENCE:.0f} s")

    def _failed(self, how: str) -> LabError:
        assert self._running is not None
        kind = LabError if self._has_written else InputError
        return kind(f"{self._program.path} {how}: {_last(self._running.words)}")

    def _start(self, program: ProxyProgram) -> None:
        place, url, settings, bind = self._place, self._server.url, *self._told(program)
        if program.document is None:
            command = flags(program, place.mode, place.node, settings, url, bind)
            files = {}
        else:
            document = configuration(program, place.mode, place.node, settings, bind)
            command, files = configured(url, place.node, str(OWN)), {FILE: json.dumps(document)}
        self._running = _started(place.namespace, (program.path, *command), files, self._links)

    def _told(self, program: ProxyProgram) -> tuple[Mapping[str, Any], str | None]:
        """Return a program's settings, and where it serves one family, by which address it knows that it is IPv6.

        Such a program takes the pods' range of its own family alone.
        """
        settings, family = self._place.settings, self._place.families[0]
        if find_release(program.version).minor >= _DUAL:
            return settings, None
        own = tuple(cidr for cidr in settings.get("cluster_cidrs", ()) if Family.of(ip_network(cidr)) is family)
        others = {field: value for field, value in settings.items() if field != "cluster_cidrs"}
        bind = None if family is Family.IPV4 else self._place.address
        return {**others, **({"cluster_cidrs": own} if own else {})}, bind

    def _end(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def close(self) -> None:
        """End the program, and its API."""
        self._end()
        self._server.close()


def _links(place: Place) -> dict[str, str]:
    """Return by which names a program finds iptables' programs of a backend.

    :raises MissingError: they are not installed.
    """
    if place.mode is ProxyMode.NFTABLES:
        find("nft")
    links = {}
    for family in ("iptables", "ip6tables"):
        restore = Path(find(f"{family}-{place.backend}-restore"))
        for verb in ("-restore", "-save", ""):
            links[f"{family}{verb}"] = str(restore.with_name(f"{family}-{place.backend}{verb}"))
    return links


def _tell_of(program: ProxyProgram, families: Sequence[Family]) -> None:
    """Warn of what a program will not do here."""
    release = find_release(program.version)
    if len(families) > 1 and release.minor < _DUAL:
        warn(f"{program.path}: kube-proxy {release.name} serves one address family: {families[0]}")
    if release.minor < _WITHOUT_CONNTRACK:
        try:
            find("conntrack")
        except MissingError as error:
            words = f"kube-proxy {release.name} deletes UDP flows' entries by the program conntrack"
            warn(f"{program.path}: {words}, and they go stale here: {error}")


def _last(words: str) -> str:
    """Return the last lines that a program has printed; where it says what killed it, that without Go's stacks."""
    lines = words.strip().splitlines()
    fatal = [number for number, line in enumerate(lines) if _FATAL.match(line)]
    if fatal:
        lines = lines[fatal[-1] : fatal[-1] + 1]
    return "\n".join(lines[-_WORDS:]) if lines else "it has printed nothing"
