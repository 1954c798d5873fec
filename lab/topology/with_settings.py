# SPDX-License-Identifier: MIT
"""A topology whose nodes' kube-proxies are told otherwise than its file says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from lab.errors import InputError, warn
from lab.kubeproxy.program import ProxyProgram
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.said import NOTHING_SAID, Said, Settings, settled, unfit
from lab.kubeproxy.settings import DEFAULT_VERSIONS, KEYS, TOPOLOGYS
from lab.topology.kube_proxy import node_release
from lab.topology.model import Host, Topology
from lab.vocabulary import Backend, ProxyMode


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
    if settings.program is not None:
        settings = dataclasses.replace(settings, program=settings.program.of_version(version))
        version = settings.program.version if settings.program else version
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
        return dataclasses.replace(
            host, **{field: one.value for field, one in said.items()}, program=_program(host, settings)
        )

    hosts = tuple(map(changed, topology.hosts))
    ranges = _cluster_said(hosts, settings)
    cidrs = ranges.value if ranges else topology.service_cidrs
    return dataclasses.replace(topology, hosts=hosts, service_cidrs=cidrs)


def _program(node: Host, settings: Settings) -> ProxyProgram | None:
    """Return the program that writes a node's rules, with the file that it is to read.

    :raises InputError: it is given flags of its own besides.
    """
    program = settings.program
    if program is None:
        return node.program
    if settings.document is not None and program.arguments:
        raise InputError("--kube-proxy-config and flags after --", cure="kube-proxy takes one of them: leave one away")
    return dataclasses.replace(program, document=settings.document)


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
