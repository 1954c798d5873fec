# SPDX-License-Identifier: MIT
"""nftables mode of v1.29, its alpha release: sets of addresses with source ranges, and a drop of what is INVALID.

Source: what a real kube-proxy v1.29.1 wrote. Other settings of ``--nodeport-addresses`` than none were not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.kubeproxy.faults import refuse_overlap
from lab.kubeproxy.nftables_names import MARK, Names
from lab.kubeproxy.nftables_writer import Writer
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.services import ServicePort

_BASE_CHAINS: Final = (
    ("filter-input", "filter", "input", -101),
    ("filter-forward", "filter", "forward", -101),
    ("filter-output", "filter", "output", -101),
    ("nat-prerouting", "nat", "prerouting", -100),
    ("nat-output", "nat", "output", -100),
    ("nat-postrouting", "nat", "postrouting", 100),
)
_JUMPS: Final = (
    ("filter-input", "endpoints-check", "ct state new "),
    ("filter-forward", "endpoints-check", "ct state new "),
    ("filter-output", "endpoints-check", "ct state new "),
    ("filter-forward", "forward", ""),
    ("filter-input", "firewall-check", "ct state new "),
    ("filter-forward", "firewall-check", "ct state new "),
    ("filter-output", "firewall-check", "ct state new "),
    ("nat-output", "services", ""),
    ("nat-prerouting", "services", ""),
    ("nat-postrouting", "masquerading", ""),
)


class AlphaWriter(Writer):
    """Writes the lines of one transaction."""

    comments = False

    def write_setup(self) -> None:
        """Write what is the same for all services.

        :raises InputError: ``--nodeport-addresses`` is given.
        """
        if self.options.node_port_addresses:
            message = "what kube-proxy v1.29 makes of --nodeport-addresses in nftables mode is not known"
            raise InputError(message, cure="leave it out, or take v1.30 or later")
        self.lines.append(f"add table {self.table}")
        self.write_base_chains(_BASE_CHAINS, _JUMPS)
        self.chain("mark-for-masquerade")
        self.rule("mark-for-masquerade", f"mark set mark or {MARK}")
        self.rule("masquerading", f"mark and {MARK} == 0 return")
        self.rule("masquerading", f"mark set mark xor {MARK}")
        self.rule("masquerading", "masquerade fully-random")
        if self.options.drops_invalid(ProxyMode.NFTABLES):
            self.rule("forward", "ct state invalid drop")
        destination = f"{self.address} . inet_proto . inet_service"
        self.container("set", "firewall", destination, "destinations that are subject to LoadBalancerSourceRanges")
        comment = "destinations+sources that are allowed by LoadBalancerSourceRanges"
        self.container("set", "firewall-allow", f"{destination} . {self.address}", comment, "interval")
        self.chain("firewall-allow-check")
        found = f"{self.ip} daddr . meta l4proto . th dport"
        self.rule("firewall-allow-check", f"{found} . {self.ip} saddr @firewall-allow return")
        self.rule("firewall-allow-check", "drop")
        self.rule("firewall-check", f"{found} @firewall jump firewall-allow-check")
        self.write_refusals()
        local = f"fib daddr type local {self.ip} daddr != {'127.0.0.0/8' if self.ip == 'ip' else '::1'}"
        node_port = f"{local} meta l4proto . th dport"
        self.rule("endpoints-check", f"{found} vmap @no-endpoint-services")
        self.rule("endpoints-check", f"{node_port} vmap @no-endpoint-nodeports")
        self.container(
            "map", "service-ips", f"{destination} : verdict", "ClusterIP, ExternalIP and LoadBalancer IP traffic"
        )
        self.container("map", "service-nodeports", "inet_proto . inet_service : verdict", "NodePort traffic")
        self.rule("services", f"{found} vmap @service-ips")
        self.rule("services", f"{node_port} vmap @service-nodeports")

    def _cluster_ip(self, port: ServicePort) -> None:
        """Write nothing: no set names the cluster IPs."""

    def _firewall_elements(self, port: ServicePort, names: Names) -> None:  # noqa: ARG002 - no chain has a name here
        refuse_overlap(port.name, port.source_ranges, self.options)
        for ip in port.load_balancer_ips:
            key = f"{ip} . {port.protocol} . {port.port}"
            self.element("firewall", key, comment=port.name)
            for source in port.source_ranges:
                self.element("firewall-allow", f"{key} . {source}", comment=port.name)
            if self.options.inside(port.source_ranges):
                self.element("firewall-allow", f"{key} . {ip}")

    def _firewall_chain(self, port: ServicePort, names: Names) -> None:
        """Write nothing: one chain checks all."""

    def _firewall_rules(self, port: ServicePort, names: Names) -> None:
        """Write nothing: one chain checks all."""
