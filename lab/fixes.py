# SPDX-License-Identifier: MIT
"""The fixes: changes to a node that are said to help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from types import MappingProxyType
from typing import Final

from lab.errors import UnknownNameError
from lab.topology.node_change import NodeChange
from lab.vocabulary import BE_LIBERAL as _BE_LIBERAL
from lab.vocabulary import ProxyMode


class Protection(Flag):
    """What a node lets nobody have, whoever sees to that: a fix, or kube-proxy's mode and version.

    An INVALID packet, for the most part; ``REJECT_UNTRANSLATED`` and ``DROP_UNALLOCATED`` are about what is for a VIP.
    """

    NOTHING = 0
    DROP_FORWARD = auto()
    DROP_INPUT = auto()
    DROP_PREROUTING = auto()
    LIBERAL = auto()
    UNTRACKED = auto()
    REJECT_UNTRANSLATED = auto()
    DROP_UNALLOCATED = auto()

    @property
    def drops_forwarded(self) -> bool:
        """Whether an INVALID packet on its way through the node is dropped."""
        return bool(self & (Protection.DROP_FORWARD | Protection.DROP_PREROUTING))

    @property
    def drops_local(self) -> bool:
        """Whether an INVALID packet for the node itself is dropped."""
        return bool(self & (Protection.DROP_INPUT | Protection.DROP_PREROUTING))

    @property
    def at_node(self) -> Protection:
        """What it amounts to where answers are for the node itself, as it masquerades: they never come to FORWARD."""
        kept = self & ~Protection.DROP_FORWARD
        return kept | Protection.DROP_FORWARD if kept.drops_local else kept

    @property
    def is_liberal(self) -> bool:
        """Whether conntrack accepts what is out of the window."""
        return Protection.LIBERAL in self

    @property
    def is_untracked(self) -> bool:
        """Whether packets from pod to pod pass conntrack by."""
        return Protection.UNTRACKED in self

    @property
    def rejects_untranslated(self) -> bool:
        """Whether what begins a flow to a Service's VIP and is not translated is refused, by ICMP."""
        return Protection.REJECT_UNTRANSLATED in self

    @property
    def drops_unallocated(self) -> bool:
        """Whether what begins a flow to a VIP that no Service has is dropped, and so leaves no entry."""
        return Protection.DROP_UNALLOCATED in self


@dataclass(frozen=True)
class Fix:
    """One change to a node that is said to help.

    :param summary: what it is, in a line.
    :param protection: what it amounts to on the kernels that the lab runs on.
    :param lasting: how it stays on a node, by kube-proxy's mode, for a person.
    :param known: whether the lab knows what it amounts to. Of a fix of the user's own nothing is expected: it is judged
        by what comes of it.
    """

    name: str
    summary: str
    change: NodeChange
    protection: Protection = Protection.NOTHING
    lasting: Mapping[ProxyMode, str] = field(default_factory=lambda: MappingProxyType({}))
    known: bool = True


def _in_both_modes(words: str) -> Mapping[ProxyMode, str]:
    return MappingProxyType(dict.fromkeys(ProxyMode, words))


_SET_AT_START: Final = (
    "from v1.29 on kube-proxy sets it when it starts: conntrack.tcpBeLiberal: true in its configuration, or"
    " --conntrack-tcp-be-liberal; before, write it to /etc/sysctl.d/ and nf_conntrack to /etc/modules-load.d/"
)
_OWN_RULES: Final = "kube-proxy neither writes nor flushes this chain: keep the rule with the node's other rules"
_OWN_TABLE: Final = "this chain is in kube-proxy's own table, which it may make anew: better in a table of your own"
_FLUSHED: Final = (
    "kube-proxy flushes this chain at its next full sync; a table of your own stays: nft 'add table inet drop-invalid;"
    " add chain inet drop-invalid forward { type filter hook forward priority 0 ; };"
    " add rule inet drop-invalid forward ct state invalid counter drop'"
)


def _nft_drop(hook: str, priority: str) -> str:
    """Return a chain of the lab's own in kube-proxy's table: nftables mode has none for these hooks."""
    chain = f"lab-{hook}"
    return (
        f"add chain TABLE {chain} {{ type filter hook {hook} priority {priority} ; }}\n"
        f"flush chain TABLE {chain}\n"
        f"add rule TABLE {chain} ct state invalid counter drop\n"
    )


#: The nodes as kube-proxy left them.
NONE: Final = Fix("none", "the node as kube-proxy sets it up", NodeChange())

#: kubernetes #74840 (v1.15); nftables mode had the same rule until #122663.
DROP_FORWARD: Final = Fix(
    "drop-forward",
    "drop INVALID packets in KUBE-FORWARD, as kube-proxy does from v1.15 on",
    NodeChange(
        iptables="*filter\n-I KUBE-FORWARD 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        nftables="insert rule TABLE filter-forward ct state invalid counter drop\n",
    ),
    Protection.DROP_FORWARD,
    MappingProxyType(
        {
            ProxyMode.IPTABLES: (
                "kube-proxy writes this rule itself from v1.15 on (from v1.29 on unless be_liberal is set when it"
                " starts); an older one takes it away at its next sync, and leaves one in FORWARD alone"
            ),
            ProxyMode.NFTABLES: _FLUSHED,
        }
    ),
)

#: kubernetes #117924: packets for the node itself never come to FORWARD.
DROP_INPUT: Final = Fix(
    "drop-input",
    "drop INVALID packets in INPUT: for clients that are the node itself, not for pods",
    NodeChange(
        iptables="*filter\n-I INPUT 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        nftables=_nft_drop("input", "filter"),
    ),
    Protection.DROP_INPUT,
    MappingProxyType({ProxyMode.IPTABLES: _OWN_RULES, ProxyMode.NFTABLES: _OWN_TABLE}),
)

DROP_PREROUTING: Final = Fix(
    "drop-prerouting",
    "drop INVALID packets in mangle PREROUTING, before it is known where they go",
    NodeChange(
        iptables="*mangle\n-I PREROUTING 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        nftables=_nft_drop("prerouting", "mangle"),
    ),
    Protection.DROP_PREROUTING,
    MappingProxyType({ProxyMode.IPTABLES: _OWN_RULES, ProxyMode.NFTABLES: _OWN_TABLE}),
)

#: kubernetes #120354 (v1.29) sets it by an option. Documentation/networking/nf_conntrack-sysctl.rst has it that every
#: RST out of the window stays INVALID; nf_conntrack_proto_tcp.c looks for those below td_maxack alone, as the cases
#: reset-out-of-window and reset-behind show.
BE_LIBERAL: Final = Fix(
    "be-liberal",
    "net.netfilter.nf_conntrack_tcp_be_liberal=1: out of the window only a RST that is behind is INVALID",
    NodeChange(sysctls=MappingProxyType({_BE_LIBERAL: "1"})),
    Protection.LIBERAL,
    _in_both_modes(_SET_AT_START),
)

#: kube-proxy up to v1.28 writes its rule whatever the sysctl says; so does a later one where it is set too late.
BE_LIBERAL_WITH_DROP: Final = Fix(
    "be-liberal-with-drop",
    "be-liberal, and the drop in KUBE-FORWARD as well",
    NodeChange(BE_LIBERAL.change.sysctls, DROP_FORWARD.change.iptables, DROP_FORWARD.change.nftables),
    Protection.LIBERAL | Protection.DROP_FORWARD,
    _in_both_modes(f"{_SET_AT_START}; the rule only where an older kube-proxy writes it"),
)

#: kubernetes #120412: kube-proxy from v1.29 on looks once, when it starts; what is set later leaves its rule in place.
BE_LIBERAL_LATE: Final = Fix(
    "be-liberal-late",
    "be-liberal, but set when kube-proxy has started already: its rule, if it has one, stays",
    NodeChange(script=f"echo 1 > /proc/sys/{_BE_LIBERAL}\n"),
    Protection.LIBERAL,
    _in_both_modes(_SET_AT_START),
)

#: kubernetes #94861, calico #7434: said to cure what the drop does to asymmetric routes.
NOTRACK: Final = Fix(
    "notrack",
    "keep packets from pod to pod out of conntrack, for the drop kills asymmetric routes",
    NodeChange(
        iptables="*raw\n-I PREROUTING 1 -s PODS -d PODS -j CT --notrack\nCOMMIT\n",
        nftables=(
            "add chain TABLE lab-raw { type filter hook prerouting priority raw ; }\n"
            "flush chain TABLE lab-raw\n"
            "add rule TABLE lab-raw NETWORK saddr { PODS } NETWORK daddr { PODS } notrack\n"
        ),
    ),
    Protection.UNTRACKED,
    MappingProxyType({ProxyMode.IPTABLES: _OWN_RULES, ProxyMode.NFTABLES: _OWN_TABLE}),
)

#: The report's own workaround, word for word. Linux has no such file since 4.9 (adf0516845bc), so it changes nothing.
DAEMONSET: Final = Fix(
    "daemonset",
    "the report's start-up script as it stands: its path is gone, so it says so and changes nothing",
    NodeChange(
        script="echo 1 > /proc/sys/net/ipv4/netfilter/ip_conntrack_tcp_be_liberal\necho done\n",
    ),
)

DAEMONSET_TODAY: Final = Fix(
    "daemonset-today",
    "the report's start-up script with today's path, after kube-proxy has started",
    NodeChange(script=f"echo 1 > /proc/sys/{_BE_LIBERAL}\necho done\n"),
    Protection.LIBERAL,
    _in_both_modes(_SET_AT_START),
)

#: What `lab run` tries unless it is told which.
DEFAULT_FIXES: Final = (NONE, DROP_FORWARD, BE_LIBERAL)

_OTHERS: Final = (
    BE_LIBERAL_WITH_DROP,
    BE_LIBERAL_LATE,
    DROP_PREROUTING,
    DROP_INPUT,
    NOTRACK,
    DAEMONSET,
    DAEMONSET_TODAY,
)

#: Every fix by its name.
FIXES: Final = {fix.name: fix for fix in (*DEFAULT_FIXES, *_OTHERS)}


def find(name: str) -> Fix:
    """Return the fix of a name; underscores will do for dashes.

    :raises UnknownNameError: there is none of this name.
    """
    try:
        return FIXES[name.replace("_", "-")]
    except KeyError:
        raise UnknownNameError("fix", name, FIXES) from None
