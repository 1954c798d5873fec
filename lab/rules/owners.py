# SPDX-License-Identifier: MIT
"""Who wrote a rule of a node: by the chain that it stands in or leads to, its comment, or its table.

Each owner's names are those of its own source, named beside them.
"""

from __future__ import annotations

import re
from typing import Final

from lab.rules.dump import OF_IPVS, is_kube_proxys, target_of

UNKNOWN: Final = "unknown"
"""Nobody that is known here: most likely the user's own."""

KUBE_PROXY: Final = "kube-proxy"
KUBELET: Final = "kubelet"

#: By the beginnings of chains' names, in iptables and, where a program makes the same there, in nft.
_CHAINS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (owner, re.compile(pattern))
    for owner, pattern in (
        # pkg/kubelet/kubelet_network_linux.go; KUBE-FIREWALL and KUBE-MARK-DROP are the kubelet's to fill.
        (KUBELET, r"KUBE-(?:KUBELET-CANARY|IPTABLES-HINT|FIREWALL)$"),
        # pkg/controllers/netpol and pkg/controllers/proxy of cloudnativelabs/kube-router
        ("kube-router", r"KUBE-(?:ROUTER-|NWPLCY-|POD-FW-)"),
        ("Calico", r"cali-|calico-"),  # felix/rules/rule_defs.go: ChainNamePrefix
        ("Cilium", r"(?:OLD_)?CILIUM_"),  # pkg/datapath/iptables/iptables.go: ciliumPrefix
        ("Flannel", r"FLANNEL-(?:FWD|POSTRTG)$"),  # pkg/trafficmngr/iptables of flannel
        ("Weave", r"WEAVE(?:$|-)"),  # net/ipt.go and npc/constants.go of weave
        ("Antrea", r"ANTREA-"),  # pkg/agent/route/route_linux.go
        ("OVN-Kubernetes", r"OVN-KUBE-"),  # go-controller/pkg/node/iptables
        ("AWS VPC CNI", r"AWS-(?:SNAT|CONNMARK)-CHAIN"),  # pkg/networkutils/network.go
        ("ip-masq-agent", r"IP-MASQ"),  # kubernetes-sigs/ip-masq-agent, and GKE's
        # plugins/meta/portmap and firewall, pkg/ip/ipmasq_linux.go of containernetworking/plugins
        ("CNI plug-ins", r"CNI-"),
        ("Docker", r"DOCKER(?:$|-)"),  # libnetwork/drivers/bridge
        ("netavark (Podman)", r"NETAVARK[-_]"),  # src/firewall of containers/netavark
        ("libvirt", r"LIBVIRT_"),  # src/network/network_iptables.c
        ("Istio", r"ISTIO_"),  # tools/istio-iptables/pkg/constants
        ("ufw", r"ufw6?-"),  # src/backend_iptables.py
        # src/firewall/core/ipXtables.py, and chains of zones
        ("firewalld", r"(?:PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)_(?:direct|ZONES|IN_ZONES|OUT_ZONES|POLICIES_)"),
        (
            "firewalld",
            r"(?:PRE|POST|IN|FWD[IO]|FWD)_(?:public|trusted|internal|external|home|work|dmz|block|drop)(?:$|_)",
        ),
        ("fail2ban", r"f2b-|fail2ban-"),  # config/action.d/iptables.conf
    )
)

#: By tables of nft, without their family.
_TABLES: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (owner, re.compile(pattern))
    for owner, pattern in (
        (KUBE_PROXY, r"kube-proxy$"),  # pkg/proxy/nftables/proxier.go
        ("firewalld", r"firewalld(?:_policy_drop)?$"),  # src/firewall/core/nftables.py
        ("Flannel", r"flannel-ipv[46]$"),  # pkg/trafficmngr/nftables
        ("Calico", r"calico$"),  # felix/nftables
        ("netavark (Podman)", r"netavark$"),  # src/firewall/nft.rs
        (
            "CNI plug-ins",
            r"cni_",
        ),  # plugins/meta/portmap/portmap_nftables.go, plugins/main/bridge, pkg/ip/ipmasq_nftables
        ("libvirt", r"libvirt_network$"),  # src/network/network_nftables.c
        ("Docker", r"docker-bridges$"),  # daemon/libnetwork/drivers/bridge/internal/nftabler
        ("fail2ban", r"f2b-"),  # config/action.d/nftables.conf
    )
)

#: By the comments of rules in chains that are there by themselves.
_COMMENTS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (owner, re.compile(pattern))
    for owner, pattern in (
        ("Calico", r"cali:"),  # felix/iptables/table.go: the hash of a rule
        ("Cilium", r"cilium[: -]"),
        ("Flannel", r"flanneld (?:masq|forward)"),
        ("kube-router", r"kube-router|rule to jump traffic .* chain KUBE-(?:POD-FW|ROUTER)"),
        ("CNI plug-ins", r"CNI portfwd|CNI firewall plugin|name: \""),
        (KUBE_PROXY, r"kubernetes (?:service|forwarding|externally-visible|postrouting|load balancer|health check)"),
        (KUBELET, r"kubernetes firewall|block incoming localnet connections"),
    )
)
_COMMENT: Final = re.compile(r'(?:--comment|(?<!-m )\bcomment) (?:"((?:[^"\\]|\\.)*)"|(\S+))')


def of_chain(name: str) -> str:
    """Return who made a chain of iptables, by its name."""
    if found := _first(_CHAINS, name):
        return found
    return KUBE_PROXY if is_kube_proxys(name) or name in OF_IPVS else UNKNOWN


def of_rule(chain: str, rule: str) -> str:
    """Return who wrote a rule of iptables.

    :param chain: in which it stands.
    :param rule: without ``-A CHAIN``.
    """
    if (owner := of_chain(chain)) != UNKNOWN:
        return owner
    owner = of_chain(target_of(rule))
    return _of_comment(rule) if owner == UNKNOWN else owner


def of_nft(table: str, chain: str, rule: str = "") -> str:
    """Return who wrote a rule of nft's.

    :param table: with its family, as in ``ip kube-proxy``.
    """
    if found := _first(_TABLES, table.rpartition(" ")[2]):
        return found
    if (owner := of_chain(chain)) != UNKNOWN:
        return owner
    target = re.search(r"\b(?:jump|goto) ([^\s,}]+)", rule)
    if target and (owner := of_chain(target[1])) != UNKNOWN:
        return owner
    return _of_comment(rule)


def _of_comment(rule: str) -> str:
    said = _COMMENT.search(rule)
    return (_first(_COMMENTS, said[1] or said[2]) if said else None) or UNKNOWN


def _first(known: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> str | None:
    return next((owner for owner, pattern in known if pattern.match(text)), None)
