# SPDX-License-Identifier: MIT
"""nftables mode: what is the same for all Services."""

from __future__ import annotations

from lab.kubeproxy import changes
from lab.kubeproxy.nftables_layout import AFTER_DNAT, BEFORE_DNAT
from lab.kubeproxy.nftables_names import MARK
from lab.kubeproxy.nftables_transaction import Transaction


class Setup(Transaction):
    """Writes the chains, sets and maps that every Service's rules hang on."""

    def write_setup(self) -> None:
        """Write what is the same for all services."""
        table = self.table
        self.lines.append(f'add table {table} {{ comment "rules for kube-proxy" ; }}')
        self.write_base_chains(*(AFTER_DNAT if changes.FILTERS_AFTER_DNAT in self.release else BEFORE_DNAT))
        self.masquerading()
        self._cluster_ips()
        self._endpoints_checks()
        verdicts = f"{self.address} . inet_proto . inet_service : verdict"
        self.container("map", "firewall-ips", verdicts, "destinations that are subject to LoadBalancerSourceRanges")
        self.rule("firewall-check", f"{self.ip} daddr . meta l4proto . th dport vmap @firewall-ips")
        self.container("map", "service-ips", verdicts, "ClusterIP, ExternalIP and LoadBalancer IP traffic")
        self.container("map", "service-nodeports", "inet_proto . inet_service : verdict", "NodePort traffic")
        if changes.ENDPOINT_MAPS in self.release:
            if self.options.masquerade_all:
                comment = "masquerade all clusterIP traffic"
                self.rule("services", f"{self.ip} daddr @cluster-ips {self.mark}", comment)
            elif self.from_elsewhere:
                comment = "masquerade clusterIP traffic from outside cluster"
                match = f"{self.ip} daddr @cluster-ips {self.from_elsewhere}"
                self.rule("services", f"{match} {self.mark}", comment)
        self.rule("services", f"{self.ip} daddr . meta l4proto . th dport vmap @service-ips")
        local = "" if self._node_port_ips() is not None else "fib daddr type local "
        self.rule("services", f"{local}{self._node_ports_match()} meta l4proto . th dport vmap @service-nodeports")

    def masquerading(self) -> None:
        """Write what masquerades, and how it is asked for."""
        mark = MARK
        if changes.ENDPOINT_MAPS in self.release:
            connection = f"{self.address} . {self.address} . inet_proto . inet_service"
            self.container("set", "hairpin-connections", connection, "service hairpin connections")
            self.rule("masquerading", f"mark and {mark} != 0 mark set mark xor {mark} masquerade fully-random")
            self.rule(
                "masquerading",
                f"ct status dnat {self.ip} saddr . {self.ip} daddr . meta l4proto . th dport"
                " @hairpin-connections masquerade fully-random",
            )
            return
        self.chain("mark-for-masquerade")
        self.rule("mark-for-masquerade", f"mark set mark or {mark}")
        self.rule("masquerading", f"mark and {mark} == 0 return")
        self.rule("masquerading", f"mark set mark xor {mark}")
        self.rule("masquerading", "masquerade fully-random")

    def _cluster_ips(self) -> None:
        self.container("set", "cluster-ips", self.address, "Active ClusterIPs")
        self.rule(
            "cluster-ips-check",
            f"{self.ip} daddr @cluster-ips reject",
            "Reject traffic to invalid ports of ClusterIPs",
        )
        ranges = [cidr for cidr in self.options.service_cidrs if self.options.of_family(cidr)]
        if ranges and changes.DROPS_UNALLOCATED in self.release:
            self.rule(
                "cluster-ips-check",
                f"{self.ip} daddr {{ {','.join(ranges)} }} drop",
                "Drop traffic to unallocated ClusterIPs",
            )

    def _endpoints_checks(self) -> None:
        table, addresses = self.table, self._node_port_ips()
        self.container("set", "nodeport-ips", self.address, "IPs that accept NodePort traffic")
        if addresses is None:
            self.lines.append(f"delete set {table} nodeport-ips")
        else:
            for address in addresses:
                self.element("nodeport-ips", address)
        self.write_refusals()
        self.rule(
            "service-endpoints-check",
            f"{self.ip} daddr . meta l4proto . th dport vmap @no-endpoint-services",
        )
        self.rule(
            "nodeport-endpoints-check",
            f"{self._node_ports_match()} meta l4proto . th dport vmap @no-endpoint-nodeports",
        )

    def write_refusals(self) -> None:
        """Write the maps and the chain that refuse what has no endpoints."""
        table = self.table
        self.container(
            "map",
            "no-endpoint-services",
            f"{self.address} . inet_proto . inet_service : verdict",
            "vmap to drop or reject packets to services with no endpoints",
        )
        self.container(
            "map",
            "no-endpoint-nodeports",
            "inet_proto . inet_service : verdict",
            "vmap to drop or reject packets to service nodeports with no endpoints",
        )
        comment = "helper for @no-endpoint-services / @no-endpoint-nodeports"
        self.lines.append(f"add chain {table} reject-chain {{{self.comment(comment)} }}")
        self.lines.append(f"flush chain {table} reject-chain")
        self.rule("reject-chain", "reject")

    def _node_port_ips(self) -> tuple[str, ...] | None:
        """Return who takes node ports: the primary address unless told otherwise; never 127.0.0.1."""
        if self.options.node_port_addresses:
            addresses = self.options.node_port_ips
        else:
            primary = self.options.primary_address
            addresses = (primary,) if primary else None
        return None if addresses is None else tuple(ip for ip in addresses if not ip.startswith("127."))

    def _node_ports_match(self) -> str:
        if self._node_port_ips() is not None:
            return f"{self.ip} daddr @nodeport-ips"
        return f"{self.ip} daddr != {'127.0.0.0/8' if self.ip == 'ip' else '::1'}"
