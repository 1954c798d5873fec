"""The fixes: changes to a node that are said to help."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lab.conntrack import window
from lab.errors import InputError
from lab.proxy import NodeChange


@dataclass(frozen=True)
class Fix:
    """One change to a node that is said to help.

    :param summary: what it is, in a line.
    :param drops_invalid: it drops what conntrack calls INVALID on its way through FORWARD.
    :param be_liberal: it tells conntrack to accept what is out of the window.
    """

    name: str
    summary: str
    change: NodeChange
    drops_invalid: bool = False
    be_liberal: bool = False


def _nft_drop(hook: str, priority: str) -> str:
    """Return a chain of the lab's own in kube-proxy's table: nftables mode has none for these hooks."""
    chain = f"lab-{hook}"
    return (
        f"add chain TABLE {chain} {{ type filter hook {hook} priority {priority} ; }}\n"
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
    drops_invalid=True,
)

#: kubernetes #117924: packets for the node itself never come to FORWARD.
DROP_INPUT: Final = Fix(
    "drop-input",
    "drop INVALID packets in INPUT: for clients that are the node itself, not for pods",
    NodeChange(
        iptables="*filter\n-I INPUT 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        nftables=_nft_drop("input", "filter"),
    ),
)

DROP_PREROUTING: Final = Fix(
    "drop-prerouting",
    "drop INVALID packets in mangle PREROUTING, before it is known where they go",
    NodeChange(
        iptables="*mangle\n-I PREROUTING 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
        nftables=_nft_drop("prerouting", "mangle"),
    ),
    drops_invalid=True,
)

#: Documentation/networking/nf_conntrack-sysctl.rst; kubernetes #120354 (v1.29) sets it by an option.
BE_LIBERAL: Final = Fix(
    "be-liberal",
    "net.netfilter.nf_conntrack_tcp_be_liberal=1: only a reset out of the window is INVALID",
    NodeChange(sysctls=MappingProxyType({window.BE_LIBERAL: "1"})),
    be_liberal=True,
)

#: kube-proxy up to v1.28 writes its rule whatever the sysctl says; so does a later one where it is set too late.
BE_LIBERAL_WITH_DROP: Final = Fix(
    "be-liberal-with-drop",
    "be-liberal, and the drop in KUBE-FORWARD as well",
    NodeChange(BE_LIBERAL.change.sysctls, DROP_FORWARD.change.iptables, DROP_FORWARD.change.nftables),
    drops_invalid=True,
    be_liberal=True,
)

#: What `lab run` tries unless it is told which.
DEFAULT_FIXES: Final = (NONE, DROP_FORWARD, BE_LIBERAL)

#: Every fix by its name.
FIXES: Final = {fix.name: fix for fix in (*DEFAULT_FIXES, BE_LIBERAL_WITH_DROP, DROP_PREROUTING, DROP_INPUT)}


def find(name: str) -> Fix:
    """Return the fix of a name; underscores will do for dashes.

    :raises InputError: there is none of this name.
    """
    try:
        return FIXES[name.replace("_", "-")]
    except KeyError:
        raise InputError(f"there is no fix {name!r}", cure=f"one of: {', '.join(FIXES)}") from None
