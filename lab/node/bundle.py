# SPDX-License-Identifier: MIT
"""What was collected of a real node: rules, sysctls, addresses, routes, versions, objects. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lab.topology.given import GivenText

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

    from lab.kubernetes.objects import EndpointSlice, Service


@dataclass(frozen=True)
class Saved(GivenText):
    """Rules as one program printed them on the node: each stands on the line that it has in the source.

    :param partial: in a sentence, what is missing where it is only a part of what the program prints; empty otherwise.
    """

    partial: str = ""


@dataclass(frozen=True)
class Interface:
    """A network interface of the node, as ``ip -j addr`` and ``ip -j -d link`` print it.

    :param kind: ``bridge``, ``veth``, ``vxlan``, ``ipip``, ...; empty where it is not said.
    :param master: the bridge or bond that it belongs to; empty for none.
    """

    name: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    kind: str = ""
    master: str = ""
    mtu: int | None = None


@dataclass(frozen=True)
class NodeRoute:
    """A route of the node's main table, as ``ip -j route`` prints it.

    :param via: None for what is on the link.
    """

    to: IPv4Network | IPv6Network
    interface: str
    via: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True)
class Bundle:
    """All that was given of a node. A part that nobody gave is empty.

    :param sysctls: keys with slashes, as below ``/proc/sys``.
    :param kernel: what ``uname -r`` printed.
    :param kernel_config: of the kernel's configuration, by option.
    :param conntrack: what conntrack counted since the node started, by the names of ``conntrack -S``.
    :param programs: versions by the program's name: ``iptables``, ``nft``, ``kube-proxy``.
    :param command_line: kube-proxy's, word by word.
    :param config: kube-proxy's KubeProxyConfiguration.
    :param name: the node's, where it is said (kube-proxy's ``--hostname-override``, ``uname -n``).
    :param log: the last lines of netfilter in the kernel's log.
    :param services: and ``endpoint_slices``: of the objects that were given; None where none were, which is not the
        same as there being none.
    :param notes: in sentences, what could not be read or was left out.
    """

    rules: tuple[Saved, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    interfaces: tuple[Interface, ...] = ()
    routes: tuple[NodeRoute, ...] = ()
    kernel: str = ""
    kernel_config: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    conntrack: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    programs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    command_line: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""
    log: tuple[str, ...] = ()
    services: tuple[Service, ...] | None = None
    endpoint_slices: tuple[EndpointSlice, ...] | None = None
    notes: tuple[str, ...] = ()
