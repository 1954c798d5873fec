# SPDX-License-Identifier: MIT
"""What `lab reach` builds labs of: topologies, objects or a node of the user's own, with each kube-proxy asked for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import typer

from lab.cli.arguments import Programs, Proxy
from lab.cli.objects import made_of, texts_of
from lab.cli.programs import with_programs
from lab.cli.screen import steps
from lab.errors import INTERRUPTED, InputError
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.said import Settings
    from lab.results.reach import Reaches
    from lab.topology.model import Topology
    from lab.topology.node_change import NodeChange
    from lab.trial.reach import Chosen

#: The topology that is asked where none is named.
USUAL: Final = "uplink"
#: The mode that means each.
BOTH: Final = "both"


@dataclass(frozen=True)
class Place:
    """What a lab of the command's own is made of."""

    topology: list[str] | None
    nodes: list[str] | None
    node: list[str] | None
    objects: list[str] | None
    mode: str | None
    version: str | None
    backend: Backend | None
    programs: Programs
    fix: str
    settings: Settings

    def ask(self, chosen: Chosen, family: Family | None, *, affinity: bool, traced: bool) -> list[Reaches]:
        """Ask in a lab for each kube-proxy, one after the other.

        :raises InputError: something of it cannot be.
        """
        from lab.netns import userns
        from lab.topology.kube_proxy import topology_notes
        from lab.trial.fix_file import find_fix

        change, settings, is_kept = find_fix(self.fix).change, self.settings, False
        versions = _versions(self.version)
        if self.node or self.objects:
            topologies, chosen, family = self._own_node(chosen, family)
        else:
            base, is_kept = _base(self.topology or [USUAL], self.nodes, chosen.service)
            family = family or _only_family(base) or Family.IPV4
            topologies = [
                made
                for one in with_programs(self.programs, settings)
                for made in _topologies(base, self.mode, versions, self.backend, one)
            ]
            notes = (note for made in topologies for note in topology_notes(made, family))
            for note in dict.fromkeys(notes):
                print(f"lab: {note}", file=sys.stderr)
        userns.ensure()
        if not topologies:
            raise InputError("none of these kube-proxies has the mode", cure="take v1.29 or later")
        found = _found(topologies, family, chosen, change, affinity=affinity, traced=traced)
        if is_kept and not (affinity or settings.said or settings.document):
            pairs, named = zip(found, topologies, strict=True), (self.topology or [USUAL])[0]
            return [replace(one, again=_again(named, made, family, self.fix)) for one, made in pairs]
        return found

    def _own_node(self, chosen: Chosen, family: Family | None) -> tuple[list[Topology], Chosen, Family]:
        """Return the topology of a node of the user's own, and what is asked of which Service in which family."""
        from lab.cli.node import own_node
        from lab.trial.own_node import with_others

        given = Proxy(None if self.mode is None else ProxyMode.IPTABLES, self.version, self.backend)
        if self.nodes:
            raise InputError("--nodes with a node's own rules", cure="leave one of them away")
        named = " ".join(self.topology or ()) or None
        found = own_node(
            self.node,
            self.objects,
            named,
            given,
            self.programs,
            self.settings,
            service=chosen.service,
            family=family,
        )
        own = with_others(found)
        for note in own.notes:
            print(f"lab: {note}", file=sys.stderr)
        return [own.topology], replace(chosen, service=chosen.service or own.service), family or own.families[0]


def _base(references: list[str], nodes: list[str] | None, service: str | None) -> tuple[Topology, bool]:
    """Return what is asked, and whether other commands have it by its name: it was no objects.

    :raises InputError: several topologies, or one with nodes besides.
    """
    from lab.topology.cluster import is_topology
    from lab.topology.reader import parse

    texts = texts_of(references)
    known = [(text, source) for text, source in texts if is_topology(text, source)]
    if not known:
        return made_of(texts, nodes, service).topology, False
    source = known[0][1]
    if len(texts) > 1:
        raise InputError("a topology among several files", source=source, cure="give it alone")
    if nodes:
        raise InputError("a topology, and --nodes", source=source, cure="--nodes is for objects: leave it away")
    return parse(*known[0]), True


def _only_family(topology: Topology) -> Family | None:
    """Return the family of all cluster IPs; None where there are both, or none."""
    addresses = {ip for one in topology.services for ip in one.spec.all_cluster_ips if ip != "None"}
    families = {Family.IPV6 if ":" in ip else Family.IPV4 for ip in addresses}
    return families.pop() if len(families) == 1 else None


def _versions(given: str | None) -> list[str | None]:
    """Return the versions that a list with commas names; of none, what a topology says.

    :raises InputError: the list is there, and empty.
    """
    named: list[str | None] = [one.strip() for one in (given or "").split(",") if one.strip()]
    if given is not None and not named:
        raise InputError(f"--proxy-version {given!r} names none", cure="write v1.20,v1.36")
    return named or [None]


def _topologies(
    place: Topology, modes: str | None, versions: Sequence[str | None], backend: Backend | None, settings: Settings
) -> Iterator[Topology]:
    """Yield the topology with each kube-proxy that is asked for; a version without a mode is told and left out.

    :raises InputError: the one version does not have the mode, or is not known.
    """
    from lab.topology.with_settings import with_proxy

    wanted: list[ProxyMode | None] = list(ProxyMode) if modes == BOTH else [ProxyMode(modes) if modes else None]
    own = settings.program.version if settings.program else None
    pairs = [(mode, version) for mode in wanted for version in versions]
    having = [(mode, one) for mode, one in pairs if mode is None or _has(one or own, mode)]
    for mode, version in pairs:
        if (mode, version) not in having:
            left = f"kube-proxy {version or own} has no {mode} mode"
            if not having and len(pairs) == 1:
                raise InputError(left, cure="take v1.29 or later")
            print(f"lab: {left}: left out", file=sys.stderr)
    for mode, version in having:
        chosen = None if mode is ProxyMode.NFTABLES and modes == BOTH else backend
        yield with_proxy(place, mode, version, chosen, settings)


def _has(version: str | None, mode: ProxyMode) -> bool:
    from lab.kubeproxy.releases import find_release

    return version is None or find_release(version).has_mode(mode)


def _found(
    topologies: Sequence[Topology],
    family: Family,
    chosen: Chosen,
    change: NodeChange,
    *,
    affinity: bool,
    traced: bool,
) -> list[Reaches]:
    from lab.trial.reach import reach as asked
    from lab.trial.reach import with_affinity

    found = []
    try:
        with steps() as step:
            for number, topology in enumerate(topologies, 1):
                step(f"asking in {topology.name}, {number} of {len(topologies)}")
                place = with_affinity(topology) if affinity else topology
                found.append(asked(place, family, chosen, change, traced=traced))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    return found


def _again(reference: str, topology: Topology, family: Family, fix: str) -> str:
    """Return the options by which another command has the same lab; empty where a program or a setting has a say."""
    node = topology.nodes[0] if topology.nodes else None
    if node is None or node.program is not None or reference == "-":
        return ""
    options = {"--topology": reference, "--proxy-mode": node.proxy_mode, "--proxy-version": node.proxy_version}
    options |= {"--family": family if family is not Family.IPV4 else None, "--fix": fix if fix != "none" else None}
    options |= {"--backend": node.backend if node.backend is not Backend.NFT else None}
    return " ".join(f"{option} {shlex.quote(str(value))}" for option, value in options.items() if value)
