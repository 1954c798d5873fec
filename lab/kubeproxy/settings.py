# SPDX-License-Identifier: MIT
"""The settings of kube-proxy that shape its rules or its node: one table of the ways in which each can be said.

A setting is said by an option named as kube-proxy's own flag, by a key of a topology's host, by a word of the pytest
plugin (the option's name with underscores), or by a field of a KubeProxyConfiguration
(:mod:`lab.kubeproxy.configuration`). What an option says counts before what the file says, and that before the
topology.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError, nearest
from lab.kubeproxy import values
from lab.kubeproxy.gates import GATES
from lab.kubeproxy.values import BadValueError, Read
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.changes import Change

#: Whose rules a node has that names no version: the last one with the bug, and the first with nftables mode in beta.
DEFAULT_VERSIONS: Final = {ProxyMode.IPTABLES: "v1.14", ProxyMode.NFTABLES: "v1.31"}


@dataclass(frozen=True)
class ProxySetting:
    """One setting, and how it is said.

    :param field: its name among :class:`~lab.kubeproxy.options.ProxyOptions`, and of a topology's host.
    :param option: kube-proxy's own flag for it, without the dashes, or what is nearest to one.
    :param read: makes its value of what was given.
    :param what: what it means, for help.
    :param key: of a topology's host; empty where the topology says it otherwise, and then ``otherwise`` tells how.
    :param paths: where a KubeProxyConfiguration says it, each with the mode in which that counts.
    :param since: the change that brought it, by its name; empty where every release knows it.
    :param mode: the one mode that has it.
    :param metavar: of the option; empty for one that is on or off.
    :param many: the option may be repeated.
    """

    field: str
    option: str
    read: Read
    what: str
    key: str = ""
    otherwise: str = ""
    paths: tuple[tuple[str, ProxyMode | None], ...] = ()
    since: str = ""
    mode: ProxyMode | None = None
    metavar: str = ""
    many: bool = False

    @property
    def word(self) -> str:
        """Its name in Python: an argument of the pytest plugin."""
        return self.option.replace("-", "_")

    def value(self, given: object, place: str) -> Any:  # noqa: ANN401 - each setting has its own type
        """Return the value of what was given.

        :param place: where, for the error.
        :raises InputError: it is none.
        """
        try:
            return self.read(given)
        except BadValueError as error:
            raise InputError(f"{place}: {error.message}", cure=error.cure) from None

    def changes(self, value: object) -> Iterator[Change]:
        """Yield what brought the setting, and this value of it."""
        from lab.kubeproxy.changes import CHANGES
        from lab.kubeproxy.options import PRIMARY, DetectLocalMode

        if self.since:
            yield CHANGES[self.since]
        if value in (DetectLocalMode.BRIDGE, DetectLocalMode.INTERFACE_PREFIX):
            yield CHANGES["detects-by-interface"]
        if value == (PRIMARY,):
            yield CHANGES["primary-node-ports"]


def _table(*rows: ProxySetting) -> dict[str, ProxySetting]:
    return {row.field: row for row in rows}


_LINKS: Final = "the links' ends say which addresses a host has, and node-ips which of them are its own"

#: All settings by field, in the order of help.
SETTINGS: Final = _table(
    ProxySetting(
        "cluster_cidrs",
        "cluster-cidr",
        values.cidr_a_family,
        "The pods' range, one a family: what comes from outside to a cluster IP is masqueraded.",
        key="cluster-cidrs",
        paths=(("clusterCIDR", None),),
        metavar="CIDR,...",
        many=True,
    ),
    ProxySetting(
        "masquerade_all",
        "masquerade-all",
        values.flag,
        "Masquerade whatever goes to a cluster IP.",
        key="masquerade-all",
        paths=(("iptables.masqueradeAll", ProxyMode.IPTABLES), ("nftables.masqueradeAll", ProxyMode.NFTABLES)),
    ),
    ProxySetting(
        "detect_local_mode",
        "detect-local-mode",
        values.detect_local,
        "How local pods are told (v1.18): ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.",
        key="detect-local-mode",
        paths=(("detectLocalMode", None),),
        since="detects-local",
        metavar="MODE",
    ),
    ProxySetting(
        "pod_bridge_interface",
        "pod-bridge-interface",
        values.interface,
        "The pods' bridge, for BridgeInterface (v1.24).",
        key="pod-bridge-interface",
        paths=(("detectLocal.bridgeInterface", None),),
        since="detects-by-interface",
        metavar="NAME",
    ),
    ProxySetting(
        "pod_interface_name_prefix",
        "pod-interface-name-prefix",
        values.interface,
        "How the names of pods' interfaces begin, for InterfaceNamePrefix (v1.24).",
        key="pod-interface-name-prefix",
        paths=(("detectLocal.interfaceNamePrefix", None),),
        since="detects-by-interface",
        metavar="PREFIX",
    ),
    ProxySetting(
        "node_port_addresses",
        "nodeport-addresses",
        values.node_ports,
        "Ranges of the node's addresses that take node ports, or primary (v1.31).",
        key="nodeport-addresses",
        paths=(("nodePortAddresses", None),),
        metavar="CIDR,...",
        many=True,
    ),
    ProxySetting(
        "localhost_node_ports",
        "iptables-localhost-nodeports",
        values.flag,
        "In iptables mode, whether node ports work by 127.0.0.1 (v1.26); else they do.",
        key="iptables-localhost-nodeports",
        paths=(("iptables.localhostNodePorts", ProxyMode.IPTABLES),),
        since="localnet-by-option",
        mode=ProxyMode.IPTABLES,
    ),
    ProxySetting(
        "masquerade_bit",
        "iptables-masquerade-bit",
        values.bit,
        "In iptables mode, which bit of a packet's mark asks for masquerading; else 14.",
        key="iptables-masquerade-bit",
        paths=(("iptables.masqueradeBit", ProxyMode.IPTABLES),),
        mode=ProxyMode.IPTABLES,
        metavar="BIT",
    ),
    ProxySetting(
        "conntrack_tcp_be_liberal",
        "conntrack-tcp-be-liberal",
        values.flag,
        "Set nf_conntrack_tcp_be_liberal on the node (v1.29): then there is no drop of INVALID.",
        key="conntrack-tcp-be-liberal",
        paths=(("conntrack.tcpBeLiberal", None),),
        since="heeds-be-liberal",
    ),
    ProxySetting(
        "conntrack_tcp_timeout_established",
        "conntrack-tcp-timeout-established",
        values.time_out,
        "How long the node keeps conntrack entries of established connections; else 24h. 0s leaves the kernel's.",
        key="conntrack-tcp-timeout-established",
        paths=(("conntrack.tcpEstablishedTimeout", None),),
        metavar="TIME",
    ),
    ProxySetting(
        "conntrack_tcp_timeout_close_wait",
        "conntrack-tcp-timeout-close-wait",
        values.time_out,
        "How long it keeps those that one side has closed (CLOSE_WAIT); else 1h. 0s leaves the kernel's.",
        key="conntrack-tcp-timeout-close-wait",
        paths=(("conntrack.tcpCloseWaitTimeout", None),),
        metavar="TIME",
    ),
    ProxySetting(
        "feature_gates",
        "feature-gates",
        values.gates,
        f"Feature gates. Those that shape rules: {', '.join(GATES)}.",
        key="feature-gates",
        paths=(("featureGates", None),),
        metavar="GATE=true,...",
        many=True,
    ),
    ProxySetting(
        "node_name",
        "node-name",
        values.text,
        "The node: which of the topology's; without one, whose endpoints are local.",
        otherwise="a host's name is the node's",
        paths=(("hostnameOverride", None),),
        metavar="NAME",
    ),
    ProxySetting(
        "node_addresses",
        "node-address",
        values.addresses,
        "Without a topology: an address of the node, its own ones first.",
        otherwise=_LINKS,
        paths=(("bindAddress", None),),
        metavar="ADDRESS,...",
        many=True,
    ),
    ProxySetting(
        "node_zone",
        "node-zone",
        values.text,
        "The node's zone, by which hints choose endpoints.",
        key="node-zone",
        metavar="ZONE",
    ),
    ProxySetting(
        "node_pod_cidrs",
        "node-pod-cidr",
        values.cidr_a_family,
        "The node's own pods' range, one a family, for NodeCIDR.",
        key="node-pod-cidrs",
        metavar="CIDR,...",
        many=True,
    ),
    ProxySetting(
        "service_cidrs",
        "service-cidr",
        values.cidrs,
        "Ranges of cluster IPs: nftables mode drops what goes to one that no Service has (v1.33).",
        otherwise="the topology's own service-cidrs, beside its hosts",
        since="drops-unallocated",
        mode=ProxyMode.NFTABLES,
        metavar="CIDR,...",
        many=True,
    ),
)

#: Those that a topology's hosts have keys for.
KEYS: Final = {row.field: row for row in SETTINGS.values() if row.key}

#: Those that may be said of a topology: its hosts', and the cluster's own.
TOPOLOGYS: Final = (*KEYS, "service_cidrs")


def find_word(word: str) -> ProxySetting:
    """Return the setting that an argument of the pytest plugin means.

    :raises InputError: there is none.
    """
    by_word = {row.word: row for row in SETTINGS.values()}
    if word not in by_word:
        raise InputError(f"there is no setting {word!r} of kube-proxy", cure=nearest(word, by_word))
    return by_word[word]
