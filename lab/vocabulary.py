# SPDX-License-Identifier: MIT
"""The words that topology files, the command and the fixtures share."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

#: The sysctl that has conntrack accept what is out of the window, as a path below /proc/sys.
BE_LIBERAL: Final = "net/netfilter/nf_conntrack_tcp_be_liberal"


class Family(StrEnum):
    """An address family."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def version(self) -> Literal[4, 6]:
        """The version in the IP header."""
        return 4 if self is Family.IPV4 else 6

    @property
    def nft(self) -> Literal["ip", "ip6"]:
        """What nft calls its tables and its header."""
        return "ip" if self is Family.IPV4 else "ip6"

    @property
    def iptables(self) -> Literal["iptables", "ip6tables"]:
        """What iptables' programs for it begin with."""
        return "iptables" if self is Family.IPV4 else "ip6tables"

    @property
    def kubernetes(self) -> Literal["IPv4", "IPv6"]:
        """What Kubernetes calls it in ``ipFamilies`` and ``addressType``."""
        return "IPv4" if self is Family.IPV4 else "IPv6"

    @property
    def everything(self) -> Literal["0.0.0.0/0", "::/0"]:
        """The network of all its addresses."""
        return "0.0.0.0/0" if self is Family.IPV4 else "::/0"

    @classmethod
    def of(cls, thing: IPv4Address | IPv6Address | IPv4Interface | IPv6Interface | IPv4Network | IPv6Network) -> Family:
        """Return the family of an address, an interface address or a network."""
        return cls.IPV4 if thing.version == 4 else cls.IPV6


class ProxyMode(StrEnum):
    """How kube-proxy writes its rules."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"


class Backend(StrEnum):
    """In iptables mode, which program loads the rules: iptables-nft or iptables-legacy."""

    NFT = "nft"
    LEGACY = "legacy"


class Behaviour(StrEnum):
    """The known ways in which kernels judge packets out of the window (nf_conntrack_proto_tcp.c, tcp_in_window)."""

    #: Up to Linux 6.0: whatever is out of the window is INVALID.
    STRICT = "strict"
    #: From Linux 6.1 on (6e250dcbff1d "ignore overly delayed tcp packets"): what is late, or beyond by no more than a
    #: window, is ignored: let through and translated.
    IGNORES_LATE = "ignores-late"

    @property
    def rule(self) -> str:
        """What it means, in a line."""
        if self is Behaviour.STRICT:
            return "every packet out of the window is INVALID"
        return "late packets are ignored, those far beyond the window are INVALID"

    @property
    def words(self) -> str:
        """What it means, and which kernels are known for it."""
        return f"{self.rule} (as in Linux {'up to 6.0' if self is Behaviour.STRICT else 'from 6.1 on'})"
