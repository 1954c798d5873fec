"""What `lab rules` renders: the kube-proxy of each node of a topology, or one for Kubernetes objects alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from lab.errors import InputError, nearest
from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.proxy import DEFAULT_VERSIONS, NodeChange, proxy_options
from lab.topology.model import Topology
from lab.topology.reader import load_either
from lab.trial import with_proxy
from lab.words import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.topology.kubernetes import EndpointSlice, Service


@dataclass(frozen=True)
class Choice:
    """Whose rules; None keeps what a topology says, or the default."""

    mode: ProxyMode | None = None
    version: str | None = None
    backend: Backend | None = None


@dataclass(frozen=True)
class NodeSettings:
    """What a topology says of its nodes, for objects that come without one.

    :param name: the node's name; with a topology, which of its nodes is meant.
    :raises InputError: for an address or a range that is none.
    """

    name: str | None = None
    addresses: tuple[str, ...] = ()
    cluster_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    masquerade_all: bool = False

    def __post_init__(self) -> None:
        _check(ip_address, "--node-address", self.addresses, "write it as 10.0.0.1 or fd00::1")
        _check(ip_network, "--cluster-cidr", self.cluster_cidrs, "write it as 10.244.0.0/16 or fd00::/64")
        _check(ip_network, "--service-cidr", self.service_cidrs, "write it as 10.96.0.0/12 or fd00::/108")

    @property
    def given(self) -> dict[str, str]:
        """The options that a topology decides, of those that were given, with the place where it does."""
        places = {
            "--node-address": (self.addresses, "the links' ends say which addresses a node has"),
            "--cluster-cidr": (self.cluster_cidrs, "write the host's cluster-cidrs"),
            "--service-cidr": (self.service_cidrs, "write its service-cidrs"),
            "--masquerade-all": (self.masquerade_all, "write the host's masquerade-all"),
        }
        return {option: place for option, (value, place) in places.items() if value}


def _check(kind: Callable[[str], object], option: str, values: Iterable[str], cure: str) -> None:
    for value in values:
        try:
            kind(value)
        except ValueError as error:
            raise InputError(f"{option}: {error}", cure=cure) from None


@dataclass(frozen=True)
class Proxy:
    """One kube-proxy: where it runs, how it writes, and what it sees of the API server.

    :param node: the node's name; empty where nobody named it.
    """

    node: str
    mode: ProxyMode
    backend: Backend
    options: ProxyOptions
    services: tuple[Service, ...] = field(repr=False)
    endpoint_slices: tuple[EndpointSlice, ...] = field(repr=False)

    @property
    def title(self) -> str:
        """Whose rules these are, in a few words."""
        words = f"kube-proxy {self.options.family}"
        return f"{self.node}: {words}" if self.node else words

    @property
    def note(self) -> str | None:
        """What has to be known about the version, if anything."""
        return self.options.release.note

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
    node: NodeSettings,
    default_mode: ProxyMode = ProxyMode.IPTABLES,
) -> tuple[Proxy, ...]:
    """Return the kube-proxies that a file is about.

    :param reference: a topology by name or file, or a YAML file of Services and EndpointSlices; ``-`` for stdin.
    :param default_mode: of objects without a topology, where none is chosen.
    :raises InputError: with file, line and cure, for the first thing wrong.
    """
    given = load_either(reference)
    if isinstance(given, Topology):
        return _of_topology(reference, given, family, choice, node)
    mode = choice.mode or default_mode
    if mode is ProxyMode.NFTABLES and choice.backend is not None:
        raise InputError("--backend is for iptables mode", cure="leave it out")
    options = ProxyOptions(
        family=family,
        version=choice.version or DEFAULT_VERSIONS[mode],
        cluster_cidrs=node.cluster_cidrs,
        service_cidrs=node.service_cidrs,
        masquerade_all=node.masquerade_all,
        node_name=node.name,
        node_addresses=node.addresses,
    )
    backend = choice.backend or Backend.NFT
    return (Proxy(node.name or "", mode, backend, options, given.services, given.endpoint_slices),)


def _of_topology(
    reference: str, topology: Topology, family: Family, choice: Choice, node: NodeSettings
) -> tuple[Proxy, ...]:
    if node.given:
        option, place = next(iter(node.given.items()))
        raise InputError(f"{option}: the topology {topology.name} decides that", cure=place)
    topology = with_proxy(topology, choice.mode, choice.version, choice.backend)
    if not topology.nodes:
        raise InputError(f"{reference}: no host has proxy-mode, so there are no rules")
    nodes = [host for host in topology.nodes if node.name in (None, host.name)]
    if not nodes:
        cure = nearest(node.name or "", [host.name for host in topology.nodes])
        raise InputError(f"{reference}: no host with proxy-mode is named {node.name!r}", cure=cure)
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
