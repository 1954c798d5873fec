# SPDX-License-Identifier: MIT
"""Changes of what kube-proxy sets on its node, and of what it can be told."""

from __future__ import annotations

from typing import Final

from lab.kubeproxy.changes.change import BOTH, Area, Change

RAISES_TIMEOUTS: Final = Change(
    "raises-timeouts",
    23,
    "conntrack's time-outs of established and close-wait connections are only raised: the kernel's five days stay",
    Area.NODE,
    modes=BOTH,
    pulls=(103174,),
)
SETS_TIMEOUTS: Final = Change(
    "sets-timeouts",
    29,
    "conntrack's time-outs of established (one day) and close-wait connections (an hour) are set as up to v1.22",
    Area.NODE,
    modes=BOTH,
    pulls=(120448,),
)
SETS_BE_LIBERAL: Final = Change(
    "sets-be-liberal",
    29,
    "nf_conntrack_tcp_be_liberal is set with --conntrack-tcp-be-liberal",
    Area.NODE,
    modes=BOTH,
    pulls=(120354,),
)
LOCALNET_BY_ADDRESSES: Final = Change(
    "localnet-by-addresses",
    24,
    "route_localnet is set only where --nodeport-addresses hold a loopback address",
    Area.NODE,
    pulls=(107684,),
)
LOCALNET_BY_OPTION: Final = Change(
    "localnet-by-option",
    26,
    "route_localnet is set only with --iptables-localhost-nodeports",
    Area.NODE,
    pulls=(108250,),
)
DETECTS_LOCAL: Final = Change(
    "detects-local",
    18,
    "--detect-local-mode says how local pods are told: by ClusterCIDR, as before, or by NodeCIDR",
    Area.NODE,
    modes=BOTH,
    pulls=(87748,),
    read=True,
)
DETECTS_BY_INTERFACE: Final = Change(
    "detects-by-interface",
    24,
    "--detect-local-mode knows BridgeInterface and InterfaceNamePrefix",
    Area.NODE,
    modes=BOTH,
    pulls=(95400,),
    read=True,
)
PRIMARY_NODE_PORTS: Final = Change(
    "primary-node-ports",
    31,
    "--nodeport-addresses knows primary, the node's own address",
    Area.NODE,
    modes=BOTH,
    pulls=(123105,),
    read=True,
)
LOSES_ZONE: Final = Change(
    "loses-zone",
    34,
    "the node's zone can be lost when kube-proxy starts (2 of 40 starts): hints for zones are not heeded then",
    Area.NODE,
    modes=BOTH,
    read=True,
)
