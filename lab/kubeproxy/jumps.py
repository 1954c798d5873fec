# SPDX-License-Identifier: MIT
"""iptables mode: the jumps from the built-in chains, the canaries, and the kubelet's chains on the same node.

kube-proxy makes jumps by single calls of iptables (``iptablesJumpChains`` in ``pkg/proxy/iptables/proxier.go``), each
put first in its chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.kubeproxy import changes
from lab.kubeproxy.tables import LOCALHOST_GUARD, chain
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubeproxy.options import ProxyOptions
    from lab.kubeproxy.releases import Release

_NEW = "-m conntrack --ctstate NEW "
_PORTALS = '-m comment --comment "kubernetes service portals"'
_EXTERNAL = _NEW + '-m comment --comment "kubernetes externally-visible service portals"'
_FIREWALL = _NEW + '-m comment --comment "kubernetes load balancer firewall"'
_HEALTH = '-m comment --comment "kubernetes health check service ports"'
_FORWARD = '-m comment --comment "kubernetes forwarding rules"'
_POSTROUTING = '-m comment --comment "kubernetes postrouting rules"'

_DROP_MARK = "0x00008000/0x00008000"  # bit 15, the kubelet's --iptables-drop-bit


def jumps(options: ProxyOptions) -> str:
    """Write the jumps and the canaries, as an input of ``iptables-restore --noflush`` to be loaded once."""
    release = options.release
    chains: list[tuple[str, str]] = []
    if changes.CANARIES in release:
        chains += [(table, "KUBE-PROXY-CANARY") for table in ("mangle", "nat", "filter")]
    if changes.OWN_FIREWALL in release and not options.localhost_opened:
        chains.append(("filter", "KUBE-FIREWALL"))
    return _text(_jumps(release), chains)


def _jumps(release: Release) -> list[tuple[str, str, str, str]]:
    """Return table, chain to jump to, chain to jump from, and match, in the order in which they are put first."""
    found = [("filter", "KUBE-EXTERNAL-SERVICES", "INPUT", _EXTERNAL)]
    if changes.FORWARD_EXTERNAL in release:
        found.append(("filter", "KUBE-EXTERNAL-SERVICES", "FORWARD", _EXTERNAL))
    if changes.HEALTH_PORTS in release:
        found.append(("filter", "KUBE-NODEPORTS", "INPUT", _HEALTH))
    found += [("filter", "KUBE-SERVICES", source, _NEW + _PORTALS) for source in ("FORWARD", "OUTPUT")]
    if changes.FORWARD_EXTERNAL not in release:
        found.append(("filter", "KUBE-SERVICES", "INPUT", _NEW + _PORTALS))
    found.append(("filter", "KUBE-FORWARD", "FORWARD", _FORWARD))
    if changes.PROXY_FIREWALL in release:
        found += [("filter", "KUBE-PROXY-FIREWALL", source, _FIREWALL) for source in ("INPUT", "OUTPUT", "FORWARD")]
    found += [("nat", "KUBE-SERVICES", source, _PORTALS) for source in ("OUTPUT", "PREROUTING")]
    found.append(("nat", "KUBE-POSTROUTING", "POSTROUTING", _POSTROUTING))
    if changes.OWN_FIREWALL in release:
        found += [("filter", "KUBE-FIREWALL", source, "") for source in ("INPUT", "OUTPUT")]
    return found


def kubelets(options: ProxyOptions) -> str:
    """Write the chains that the kubelet of such a node has made before, as an input of ``iptables-restore``.

    Up to v1.24 kube-proxy marks by KUBE-MARK-DROP what is to be dropped, and leaves the drop to them; from v1.27 on
    it writes KUBE-FIREWALL itself. Source: ``pkg/kubelet/kubelet_network_linux.go`` of v1.15 and v1.26.
    """
    release = options.release
    if changes.OWN_FIREWALL in release:
        return ""
    rules = [
        (
            '-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets"'
            f" -m mark --mark {_DROP_MARK} -j DROP"
        )
    ]
    if options.family is Family.IPV4 and changes.KUBELET_GUARDS_LOCALHOST in release:
        rules.append(LOCALHOST_GUARD)
    lines = ["*filter", chain("KUBE-FIREWALL"), *rules]
    lines += ["-I OUTPUT -j KUBE-FIREWALL", "-I INPUT -j KUBE-FIREWALL", "COMMIT"]
    lines += ["*nat", chain("KUBE-MARK-DROP"), f"-A KUBE-MARK-DROP -j MARK --set-xmark {_DROP_MARK}"]
    return "\n".join([*lines, "COMMIT", ""])


def kubelets_chains(release: Release) -> tuple[str, ...]:
    """Return the names of the chains that are not kube-proxy's own at that time, though it uses them."""
    if changes.OWN_FIREWALL in release:
        return ()
    declared = changes.OWN_MARK_DROP in release and changes.PROXY_FIREWALL not in release
    return ("KUBE-FIREWALL",) if declared else ("KUBE-FIREWALL", "KUBE-MARK-DROP")


def _text(jumps: list[tuple[str, str, str, str]], chains: list[tuple[str, str]]) -> str:
    tables: dict[str, list[str]] = {}
    for table, name in chains:
        tables.setdefault(table, []).append(chain(name))
    for table, target, source, match in jumps:
        words = ["-I", source, match, "-j", target]
        tables.setdefault(table, []).append(" ".join(word for word in words if word))
    return "".join("\n".join([f"*{table}", *lines, "COMMIT", ""]) for table, lines in tables.items())
