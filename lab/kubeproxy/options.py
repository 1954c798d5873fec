"""The settings of a kube-proxy, and of the node that it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from lab.kubeproxy.versions import Version, find_version
from lab.words import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

MASQUERADE_MARK = "0x00004000"
"""The packet mark that asks for masquerading: bit 14, ``iptables.masqueradeBit``'s default."""

INVALID_ACCOUNT = "ct_state_invalid_dropped_pkts"
LOCALHOST_ACCOUNT = "localhost_nps_accepted_pkts"


@dataclass(frozen=True)
class ProxyOptions:
    """One kube-proxy, for one address family.

    :param family: the address family that the rules are for.
    :param version: the kube-proxy release, such as ``v1.29``.
    :param cluster_cidrs: the pods' address ranges, one a family (``--cluster-cidr``). With one, what comes
        from elsewhere to a cluster IP is masqueraded; without, no source is taken as a local pod.
    :param service_cidrs: the ranges that cluster IPs come from; nftables mode drops what goes to unused ones.
    :param masquerade_all: masquerade all traffic to cluster IPs.
    :param node_name: the node's name, by which endpoints are found to be local.
    :param node_addresses: the node's addresses; the first of the family is its primary one.
    :param node_port_addresses: CIDRs of the node's addresses that take node ports (``--nodeport-addresses``).
        Empty: all local addresses in iptables mode, the primary one in nftables mode.
    :param localhost_node_ports: node ports work by 127.0.0.1 (``--iptables-localhost-nodeports``): kube-proxy
        then sets ``net.ipv4.conf.all.route_localnet`` to 1.
    :param conntrack_tcp_be_liberal: whether ``nf_conntrack_tcp_be_liberal`` is set when kube-proxy starts.
    :param nfacct: the kernel has nfacct. kube-proxy makes the objects named by :attr:`accounts` by netlink
        before it loads rules, and leaves the matches out where it cannot.
    """

    family: Family
    version: str = "v1.14"
    cluster_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    masquerade_all: bool = False
    node_name: str | None = None
    node_addresses: tuple[str, ...] = ()
    node_port_addresses: tuple[str, ...] = ()
    localhost_node_ports: bool = True
    conntrack_tcp_be_liberal: bool = False
    nfacct: bool = True

    @cached_property
    def release(self) -> Version:
        """The version's properties.

        :raises InputError: for a version that is not known.
        """
        return find_version(self.version)

    @cached_property
    def cluster_cidr(self) -> str | None:
        """The pods' range in this family."""
        return next((cidr for cidr in self.cluster_cidrs if self.of_family(cidr)), None)

    @cached_property
    def primary_address(self) -> str | None:
        """The node's first address in this family."""
        return next((address for address in self.node_addresses if self.of_family(address)), None)

    @cached_property
    def node_port_ips(self) -> tuple[str, ...] | None:
        """The addresses that ``node_port_addresses`` selects in this family; None where all are meant."""
        cidrs = [ip_network(cidr) for cidr in self.node_port_addresses if self.of_family(cidr)]
        if not cidrs or any(cidr.prefixlen == 0 for cidr in cidrs):
            return None
        loopback = ["127.0.0.1"] if self.localhost_opened else []
        addresses = [address for address in (*self.node_addresses, *loopback) if self.of_family(address)]
        return tuple(address for address in addresses if any(ip_address(address) in cidr for cidr in cidrs))

    @property
    def drops_invalid(self) -> bool:
        """Whether the INVALID drop is written."""
        release = self.release
        return release.drops_invalid and not (release.heeds_be_liberal and self.conntrack_tcp_be_liberal)

    @property
    def localhost_opened(self) -> bool:
        """Whether node ports work by 127.0.0.1: in IPv4 only, and where ``node_port_addresses`` has it."""
        if self.family is not Family.IPV4 or not self.localhost_node_ports:
            return False
        cidrs = [ip_network(cidr) for cidr in self.node_port_addresses if self.of_family(cidr)]
        return not cidrs or any(cidr.overlaps(ip_network("127.0.0.0/8")) for cidr in cidrs)

    @property
    def accounts(self) -> tuple[str, ...]:
        """Names of the nfacct objects that have to exist before the rules of iptables mode are loaded."""
        release = self.release
        wanted = {
            INVALID_ACCOUNT: release.counts_invalid and self.drops_invalid,
            LOCALHOST_ACCOUNT: release.counts_localhost and self.localhost_opened,
        }
        return tuple(name for name, needed in wanted.items() if needed and self.nfacct)

    @property
    def loopback(self) -> str:
        """The loopback range of the family."""
        return "127.0.0.0/8" if self.family is Family.IPV4 else "::1/128"

    def inside(self, cidrs: Iterable[str]) -> bool:
        """Say whether the node's primary address is in one of the ranges."""
        address = self.primary_address
        return address is not None and any(ip_address(address) in ip_network(cidr) for cidr in cidrs)

    def of_family(self, address: str) -> bool:
        """Say whether an address or CIDR is of this family."""
        return (":" in address) == (self.family is Family.IPV6)
