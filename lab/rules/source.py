# SPDX-License-Identifier: MIT
"""What `lab rules` renders: the kube-proxy of each node of a topology, or one for Kubernetes objects alone."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING

from lab.errors import InputError, nearest
from lab.kubeproxy import ProxyOptions, find_release, iptables, nftables
from lab.kubeproxy.notes import notes
from lab.kubeproxy.said import NOTHING_SAID, Settings, plain, settled
from lab.kubeproxy.settings import DEFAULT_VERSIONS
from lab.kubeproxy.sysctls import Sysctl, sysctls
from lab.topology.kube_proxy import proxy_options
from lab.topology.model import Topology
from lab.topology.node_change import NodeChange
from lab.topology.reader import load_either
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubernetes.objects import EndpointSlice, Service


@dataclass(frozen=True)
class Choice:
    """Whose rules; None keeps what a topology says, or the default."""

    mode: ProxyMode | None = None
    version: str | None = None
    backend: Backend | None = None


@dataclass(frozen=True)
class Proxy:
    """One kube-proxy: where it runs, how it writes, and what it sees of the API server.

    :param node: the node's name; empty where nobody named it.
    """

    node: str
    mode: ProxyMode
    backend: Backend
    options: ProxyOptions
    services: tuple[Service, ...] = dataclass_field(repr=False)
    endpoint_slices: tuple[EndpointSlice, ...] = dataclass_field(repr=False)

    @property
    def title(self) -> str:
        """Whose rules these are, in a few words."""
        words = f"kube-proxy {self.options.family}"
        return f"{self.node}: {words}" if self.node else words

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about the version, and about what of the objects these rules leave out."""
        objects = self.services, self.endpoint_slices
        return tuple(notes(*objects, self.options, self.mode, zone="--node-zone", name="--node-name"))

    @property
    def sysctls(self) -> tuple[Sysctl, ...]:
        """The sysctls that it sets."""
        return sysctls(self.options, self.mode)

    def render(self) -> tuple[str, ...]:
        """Return what it loads, in that order: two inputs of iptables-restore, or one of nft.

        :raises InputError: the version is not known or has no such mode, or services claim the same address.
        """
        if self.mode is ProxyMode.IPTABLES:
            rules = iptables.render(self.services, self.endpoint_slices, self.options)
            return rules.kubelet + rules.restore, rules.jumps
        return (nftables.render(self.services, self.endpoint_slices, self.options),)


def proxies(
    reference: str,
    family: Family,
    choice: Choice,
    settings: Settings = NOTHING_SAID,
    default_mode: ProxyMode = ProxyMode.IPTABLES,
) -> tuple[Proxy, ...]:
    """Return the kube-proxies that a file is about.

    :param reference: a topology by name or file, or a YAML file of Services and EndpointSlices; ``-`` for stdin.
    :param settings: what is said besides; with a topology, the node's name says which of its nodes is meant.
    :param default_mode: of objects without a topology, where none is chosen.
    :raises InputError: with file, line and cure, for the first thing wrong.
    """
    if choice.version is not None:
        find_release(choice.version)
    given = load_either(reference)
    if isinstance(given, Topology):
        return _of_topology(reference, given, family, choice, settings)
    mode = choice.mode or settings.mode or default_mode
    if mode is ProxyMode.NFTABLES and choice.backend is not None:
        raise InputError("--backend is for iptables mode", cure="leave it out")
    release = find_release(choice.version or DEFAULT_VERSIONS[mode])
    said = settled({}, settings.fitting(mode, release))
    options = ProxyOptions(
        family=family, version=release.name, **{field: plain(one.value) for field, one in said.items()}
    )
    backend = choice.backend or Backend.NFT
    return (Proxy(options.node_name or "", mode, backend, options, given.services, given.endpoint_slices),)


def _of_topology(
    reference: str, topology: Topology, family: Family, choice: Choice, settings: Settings
) -> tuple[Proxy, ...]:
    named = settings.get("node_name")
    if named is not None and named.by_file and all(host.name != named.value for host in topology.nodes):
        named = None  # a real node's name: that it is not used is said
    settings = settings.without("node_name") if named else settings
    topology = with_proxy(
        topology, choice.mode, choice.version, choice.backend, settings, node=named.value if named else None
    )
    if not topology.nodes:
        raise InputError(f"{reference}: no host has proxy-mode, so there are no rules")
    nodes = [host for host in topology.nodes if named is None or host.name == named.value]
    if named is not None and not nodes:
        cure = nearest(named.value, [host.name for host in topology.nodes])
        raise InputError(f"{reference}: no host with proxy-mode is named {named.value!r}", cure=cure)
    return tuple(
        Proxy(
            host.name,
            host.proxy_mode or ProxyMode.IPTABLES,
            host.backend,
            proxy_options(topology, host, family, NodeChange()),
            topology.services,
            topology.endpoint_slices,
        )
        for host in nodes
    )
