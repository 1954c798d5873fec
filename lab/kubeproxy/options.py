# SPDX-License-Identifier: MIT
"""The settings of a kube-proxy, and of the node that it runs on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from lab.errors import InputError
from lab.kubeproxy import changes
from lab.kubeproxy.releases import Release, find_release
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterable

INVALID_ACCOUNT = "ct_state_invalid_dropped_pkts"
LOCALHOST_ACCOUNT = "localhost_nps_accepted_pkts"

PRIMARY = "primary"
"""The word of ``--nodeport-addresses`` for the node's own address."""


class DetectLocalMode(StrEnum):
    """How kube-proxy tells what local pods send (``--detect-local-mode``)."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE = "BridgeInterface"
    INTERFACE_PREFIX = "InterfaceNamePrefix"


@dataclass(frozen=True)
class ProxyOptions:
    """One kube-proxy, for one address family.

    :param family: the address family that the rules are for.
    :param version: the kube-proxy release, such as ``v1.29`` or ``v1.33.6``.
    :param cluster_cidrs: the pods' address ranges, one a family (``--cluster-cidr``). With one, what comes
        from elsewhere to a cluster IP is masqueraded; without, no source is taken as a local pod.
    :param service_cidrs: the ranges that cluster IPs come from; nftables mode drops what goes to unused ones.
    :param masquerade_all: masquerade all traffic to cluster IPs.
    :param node_name: the node's name, by which endpoints are found to be local.
    :param node_zone: the node's zone (its label ``topology.kubernetes.io/zone``), by which hints choose.
    :param node_addresses: the node's addresses; the first of the family is its primary one.
    :param node_pod_cidrs: the node's own pods' ranges, one a family, for ``NodeCIDR``.
    :param detect_local_mode: how local pods are told.
    :param pod_bridge_interface: the bridge of ``BridgeInterface``.
    :param pod_interface_name_prefix: the beginning of pods' interfaces' names, for ``InterfaceNamePrefix``.
    :param node_port_addresses: CIDRs of the node's addresses that take node ports (``--nodeport-addresses``), or
        ``primary``. Empty: all local addresses in iptables mode, the primary one in nftables mode.
    :param localhost_node_ports: node ports work by 127.0.0.1 (``--iptables-localhost-nodeports``, v1.26): kube-proxy
        then sets ``net.ipv4.conf.all.route_localnet`` to 1.
    :param masquerade_bit: which bit of the packet mark asks for masquerading, in iptables mode
        (``--iptables-masquerade-bit``).
    :param conntrack_tcp_be_liberal: whether ``nf_conntrack_tcp_be_liberal`` is set when kube-proxy starts.
    :param conntrack_tcp_timeout_established: how long entries of established connections are kept, as Go writes
        durations; and ``conntrack_tcp_timeout_close_wait`` of those that one side has closed. 0: the kernel's.
    :param feature_gates: gates that are on or off against their default, by name.
    :param own_cluster: the cluster is one of this family: up to v1.19, which know one cluster IP of a Service, it is
        that of the family, and not the first.
    :param nfacct: the kernel has nfacct. kube-proxy makes the objects named by :attr:`accounts` by netlink
        before it loads rules, and leaves the matches out where it cannot.
    """

    family: Family
    version: str = "v1.14"
    cluster_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    masquerade_all: bool = False
    node_name: str | None = None
    node_zone: str | None = None
    node_addresses: tuple[str, ...] = ()
    node_pod_cidrs: tuple[str, ...] = ()
    detect_local_mode: DetectLocalMode = DetectLocalMode.CLUSTER_CIDR
    pod_bridge_interface: str = ""
    pod_interface_name_prefix: str = ""
    node_port_addresses: tuple[str, ...] = ()
    localhost_node_ports: bool = True
    masquerade_bit: int = 14
    conntrack_tcp_be_liberal: bool = False
    conntrack_tcp_timeout_established: str = "24h"
    conntrack_tcp_timeout_close_wait: str = "1h"
    feature_gates: tuple[tuple[str, bool], ...] = ()
    own_cluster: bool = False
    nfacct: bool = True

    @cached_property
    def release(self) -> Release:
        """The version's properties.

        :raises InputError: for a version that is not known.
        """
        return find_release(self.version)

    def with_release(self, release: Release) -> ProxyOptions:
        """Return the same settings for a release of any set of changes, such as none has."""
        options = replace(self, version=release.name)
        vars(options)["release"] = release  # the cached property
        return options

    def require_mode(self, mode: ProxyMode) -> None:
        """Refuse a proxy mode that the release does not have.

        :raises InputError: names the first release that has it.
        """
        if not self.release.has_mode(mode):
            cure = f"take v1.{changes.NFT_ALPHA.minor} or later"
            raise InputError(f"kube-proxy {self.version} has no {mode} mode", cure=cure)

    def gate(self, name: str, *, default: bool) -> bool:
        """Return whether a feature gate is on."""
        return dict(self.feature_gates).get(name, default)

    @property
    def mark(self) -> str:
        """The packet mark that asks for masquerading, in iptables mode."""
        return f"{1 << self.masquerade_bit:#010x}"

    @cached_property
    def pods_match(self) -> tuple[str, str] | None:
        """How local pods are told: a match of iptables (``-s`` or ``-i``) and its value; None where they are not."""
        mode = self.detect_local_mode
        if mode is DetectLocalMode.BRIDGE:
            return ("-i", self.pod_bridge_interface) if self.pod_bridge_interface else None
        if mode is DetectLocalMode.INTERFACE_PREFIX:
            return ("-i", f"{self.pod_interface_name_prefix}+") if self.pod_interface_name_prefix else None
        cidrs = self.cluster_cidrs if mode is DetectLocalMode.CLUSTER_CIDR else self.node_pod_cidrs
        cidr = self._first(cidrs)
        return ("-s", cidr) if cidr else None

    @cached_property
    def cluster_cidr(self) -> str | None:
        """The pods' range in this family."""
        return self._first(self.cluster_cidrs)

    @cached_property
    def primary_address(self) -> str | None:
        """The node's first address in this family."""
        return self._first(self.node_addresses)

    def _first(self, addresses: Iterable[str]) -> str | None:
        return next(filter(self.of_family, addresses), None)

    @cached_property
    def _node_port_ranges(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The ranges of this family in ``node_port_addresses``."""
        return tuple(ip_network(cidr) for cidr in self.node_port_addresses if cidr != PRIMARY and self.of_family(cidr))

    @cached_property
    def node_port_ips(self) -> tuple[str, ...] | None:
        """The addresses that ``node_port_addresses`` selects in this family; None where all are meant.

        Loopback first, as its interface is the first: 127.0.0.1 where node ports work by it, ::1 up to v1.25.
        """
        if PRIMARY in self.node_port_addresses:
            return (self.primary_address,) if self.primary_address else None
        cidrs = self._node_port_ranges
        if not cidrs and self.node_port_addresses and not self.dual_stack:
            return ()  # a program of one family takes the other's ranges for all that are given
        if not cidrs or any(cidr.prefixlen == 0 for cidr in cidrs):
            return None
        loopback = ["127.0.0.1"] if self.localhost_opened else []
        if changes.LOOPBACK_NODE_PORTS not in self.release:
            loopback = ["127.0.0.1", "::1"]
        addresses = [address for address in (*loopback, *self.node_addresses) if self.of_family(address)]
        return tuple(address for address in addresses if any(ip_address(address) in cidr for cidr in cidrs))

    def drops_invalid(self, mode: ProxyMode) -> bool:
        """Return whether the drop of what is INVALID is written."""
        release = self.release
        if mode is ProxyMode.NFTABLES and changes.NFT_FORGETS_INVALID in release:
            return False
        if changes.DROPS_INVALID not in release:
            return False
        return not (changes.HEEDS_BE_LIBERAL in release and self.conntrack_tcp_be_liberal)

    @property
    def dual_stack(self) -> bool:
        """Whether one program serves both families."""
        return self.gate("IPv6DualStack", default=changes.DUAL_STACK in self.release)

    @property
    def localhost_opened(self) -> bool:
        """Whether node ports work by 127.0.0.1: in IPv4 only, and where ``node_port_addresses`` has it."""
        if self.family is not Family.IPV4:
            return False
        if changes.LOCALNET_BY_OPTION in self.release and not self.localhost_node_ports:
            return False
        if changes.LOCALNET_BY_ADDRESSES not in self.release:
            return True
        if PRIMARY in self.node_port_addresses:
            return False
        cidrs = self._node_port_ranges
        return not cidrs or any(cidr.overlaps(ip_network(self.loopback)) for cidr in cidrs)

    @property
    def accounts(self) -> tuple[str, ...]:
        """Names of the nfacct objects that have to exist before the rules of iptables mode are loaded."""
        wanted = {
            INVALID_ACCOUNT: changes.COUNTS_INVALID in self.release and self.drops_invalid(ProxyMode.IPTABLES),
            LOCALHOST_ACCOUNT: changes.COUNTS_LOCALHOST in self.release and self.localhost_opened,
        }
        return tuple(name for name, needed in wanted.items() if needed and self.nfacct)

    @property
    def loopback(self) -> str:
        """The loopback range of the family."""
        return "127.0.0.0/8" if self.family is Family.IPV4 else "::1/128"

    def inside(self, cidrs: Iterable[str]) -> bool:
        """Return whether the node's own address, as kube-proxy knows it, is in one of the ranges."""
        address = self.primary_address
        if self.dual_stack and changes.NODE_IP_OF_FAMILY not in self.release:
            address = "0.0.0.0" if self.family is Family.IPV4 else "::"  # noqa: S104 - nothing is bound to it
        return address is not None and any(ip_address(address) in ip_network(cidr) for cidr in cidrs)

    def of_family(self, address: str) -> bool:
        """Return whether an address or CIDR is of this family."""
        return (":" in address) == (self.family is Family.IPV6)
