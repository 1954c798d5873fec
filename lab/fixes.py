"""The fixes: changes to a node that are said to help."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lab.errors import InputError
from lab.fabric import NodeChange


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

#: Documentation/networking/nf_conntrack-sysctl.rst; kubernetes #120354 (v1.29) sets it by an option.
BE_LIBERAL: Final = Fix(
    "be-liberal",
    "net.netfilter.nf_conntrack_tcp_be_liberal=1: only a reset out of the window is INVALID",
    NodeChange(sysctls=MappingProxyType({"net/netfilter/nf_conntrack_tcp_be_liberal": "1"})),
    be_liberal=True,
)

FIXES: Final = {fix.name: fix for fix in (NONE, DROP_FORWARD, BE_LIBERAL)}


def find(name: str) -> Fix:
    """Return the fix of a name; underscores will do for dashes.

    :raises InputError: there is none of this name.
    """
    try:
        return FIXES[name.replace("_", "-")]
    except KeyError:
        raise InputError(f"there is no fix {name!r}", cure=f"one of: {', '.join(FIXES)}") from None
