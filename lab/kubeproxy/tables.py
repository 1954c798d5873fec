# SPDX-License-Identifier: MIT
"""The text of an iptables-restore input while it grows, and the inputs that a renderer returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.kubeproxy import changes
from lab.kubeproxy.options import INVALID_ACCOUNT
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.kubeproxy.options import ProxyOptions
    from lab.kubeproxy.releases import Release
    from lab.kubeproxy.services import ServicePort, Target


NODE_PORTS_COMMENT = '"kubernetes service nodeports; NOTE: this must be the last rule in this chain"'

LOCALHOST_GUARD = (
    '-A KUBE-FIREWALL -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8'
    " ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)
"""Keeps others from 127.0.0.0/8: the kubelet's rule, and from v1.27 on kube-proxy's own."""


@dataclass(frozen=True)
class IptablesRules:
    """What a node is given, as inputs for ``iptables-restore --noflush --counters``.

    :param kubelet: the chains that the kubelet of that time makes before; empty from v1.27 on.
    :param restore: the filter and nat tables' KUBE chains, in one input.
    :param jumps: the jumps from the built-in chains, and the canaries: kube-proxy makes them by single calls.
        To be loaded once, after ``restore``: loaded again they would stand there twice.
    """

    kubelet: str
    restore: str
    jumps: str


@dataclass
class Tables:
    """Lines of the filter and nat tables: chains are declared before rules."""

    filter_chains: list[str] = field(default_factory=list)
    filter_rules: list[str] = field(default_factory=list)
    nat_chains: list[str] = field(default_factory=list)
    nat_rules: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Write the input."""
        lines = [
            "*filter",
            *self.filter_chains,
            *self.filter_rules,
            "COMMIT",
            "*nat",
            *self.nat_chains,
            *self.nat_rules,
            "COMMIT",
            "",
        ]
        return "\n".join(lines)


def chain(name: str) -> str:
    """Declare a chain; in an existing one it deletes the rules (``MakeChainLine``)."""
    return f":{name} - [0:0]"


def delete(tables: Tables, declarations: Iterable[str]) -> None:
    """Delete chains of the nat table: declaring one deletes its rules, without which it could not go."""
    for declaration in declarations:
        tables.nat_chains.append(declaration)
        tables.nat_rules.append(f"-X {declaration.split()[0].removeprefix(':')}")


def postrouting(options: ProxyOptions) -> list[str]:
    """Write KUBE-POSTROUTING and KUBE-MARK-MASQ: what is marked is masqueraded."""
    mark, release = options.mark, options.release
    comment = '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
    masquerade = "MASQUERADE --random-fully" if changes.RANDOM_FULLY in release else "MASQUERADE"
    if changes.CLEARS_MARK not in release:
        marking = f"-A KUBE-MARK-MASQ -j MARK --set-xmark {mark}/{mark}"
        return [f"{comment} -m mark --mark {mark}/{mark} -j {masquerade}", marking]
    return [
        f"-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --xor-mark {mark}",
        f"{comment} -j {masquerade}",
        f"-A KUBE-MARK-MASQ -j MARK --or-mark {mark}",
    ]


def forward(options: ProxyOptions) -> list[str]:
    """Write KUBE-FORWARD: what is INVALID is dropped, what belongs to a Service's connection is accepted."""
    mark, release = options.mark, options.release
    rules = []
    if options.drops_invalid(ProxyMode.IPTABLES):
        count = f" -m nfacct --nfacct-name {INVALID_ACCOUNT}" if INVALID_ACCOUNT in options.accounts else ""
        rules.append(f"-A KUBE-FORWARD -m conntrack --ctstate INVALID{count} -j DROP")
    comment = '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding'
    rules.append(f'{comment} rules" -m mark --mark {mark}/{mark} -j ACCEPT')
    established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    if changes.ONE_CONNTRACK_RULE in release:
        return [*rules, f'{comment} conntrack rule" {established}']
    always = changes.ACCEPTS_ESTABLISHED in release
    cidr = options.cluster_cidr
    if cidr or always:
        source, destination = ("", "") if always else (f"-s {cidr} ", f"-d {cidr} ")
        rules += [
            f'{comment} conntrack pod source rule" {source}{established}',
            f'{comment} conntrack pod destination rule" {destination}{established}',
        ]
    return rules


def health_check(port: ServicePort) -> str:
    """Write the rule that lets load balancers ask on this node whether a Service has endpoints here."""
    return (
        f'-A KUBE-NODEPORTS -m comment --comment "{port.name} health check node port" -m tcp -p tcp'
        f" --dport {port.health_check_node_port} -j ACCEPT"
    )


def node_ports_entry(options: ProxyOptions) -> list[str]:
    """Write the last rules of KUBE-SERVICES: what goes to the node itself may go to a node port."""
    start = f"-A KUBE-SERVICES -m comment --comment {NODE_PORTS_COMMENT}"
    if options.node_port_ips is not None:
        return [f"{start} -d {ip} -j KUBE-NODEPORTS" for ip in options.node_port_ips]
    closed = ""
    if changes.LOOPBACK_NODE_PORTS in options.release and not options.localhost_opened:
        closed = f" ! -d {options.loopback}"
    return [f"{start} -m addrtype --dst-type LOCAL{closed} -j KUBE-NODEPORTS"]


def balance(targets: tuple[Target, ...], release: Release) -> list[str]:
    """Return each balancing rule's match: the i-th of n has probability 1/(n-i), the last has none."""
    decimals = 10 if changes.TEN_DIGITS in release else 5
    count = len(targets)
    if not count:
        return []
    return [f" -m statistic --mode random --probability {1 / left:.{decimals}f}" for left in range(count, 1, -1)] + [""]
