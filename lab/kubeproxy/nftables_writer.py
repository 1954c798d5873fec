# SPDX-License-Identifier: MIT
"""nftables mode: what is written for a Service port.

Source: ``pkg/proxy/nftables/proxier.go`` of v1.31 to v1.35; for v1.36, pull requests #135800 and #136499 and
what ``nft list`` prints on such nodes. From v1.36 there is no mark-for-masquerade, no chain for an endpoint
without affinity, and one set of connections that come back to where they started.
"""

from __future__ import annotations

from lab.kubeproxy import changes
from lab.kubeproxy.nftables_names import Names
from lab.kubeproxy.nftables_setup import Setup
from lab.kubeproxy.services import ServicePort, Target


class Writer(Setup):
    """Writes the lines of one transaction: the setup, and each Service port."""

    def write_port(self, port: ServicePort, *, chains: bool = True) -> None:
        """Write the elements of one service port, and its chains if wanted."""
        names = Names(port)
        if chains:
            self._port_chains(port, names)
        self._port_elements(port, names)
        if chains:
            self._port_rules(port, names)

    def _chained(self, port: ServicePort) -> tuple[Target, ...]:
        """Return the endpoints that have chains of their own."""
        chained = port.affinity_seconds or changes.ENDPOINT_MAPS not in self.release
        return port.endpoints.reachable if chained else ()

    def _port_chains(self, port: ServicePort, names: Names) -> None:
        endpoints = port.endpoints
        for target in self._chained(port):
            self.chain(f"endpoint-{names.endpoint(target)}")
        if endpoints.cluster:
            self.chain(names.cluster)
        if endpoints.local:
            self.chain(names.local)
        if endpoints.exist and port.externally_accessible:
            self.chain(names.external)
        self._firewall_chain(port, names)

    def _firewall_chain(self, port: ServicePort, names: Names) -> None:
        if port.load_balancer_ips and port.source_ranges:
            self.chain(names.firewall)

    def _port_elements(self, port: ServicePort, names: Names) -> None:
        """Write the elements that send a port's traffic on its way, or refuse it."""
        exist, said = port.endpoints.exist, port.name
        if changes.ENDPOINT_MAPS in self.release:
            for target in port.endpoints.reachable:
                if target.local:
                    ip = target.address
                    self.element("hairpin-connections", f"{ip} . {ip} . {port.protocol} . {target.port}")
        self._cluster_ip(port)
        key = f"{port.cluster_ip} . {port.protocol} . {port.port}"
        if names.internal_reachable:
            self.element("service-ips", key, f"goto {names.internal}")
        else:
            self.element("no-endpoint-services", key, names.refusal, said)
        for ip in (*port.external_ips, *port.load_balancer_ips):
            key = f"{ip} . {port.protocol} . {port.port}"
            if exist:
                self.element("service-ips", key, f"goto {names.external}")
            if not names.external_reachable:
                self.element("no-endpoint-services", key, names.refusal, said)
        if port.source_ranges:
            self._firewall_elements(port, names)
        if port.node_port:
            key = f"{port.protocol} . {port.node_port}"
            if exist:
                self.element("service-nodeports", key, f"goto {names.external}")
            if not names.external_reachable:
                self.element("no-endpoint-nodeports", key, names.refusal, said)

    def _cluster_ip(self, port: ServicePort) -> None:
        self.element("cluster-ips", port.cluster_ip)

    def _firewall_elements(self, port: ServicePort, names: Names) -> None:
        said = "" if changes.NFT_BETA in self.release else port.name
        for ip in port.load_balancer_ips:
            key = f"{ip} . {port.protocol} . {port.port}"
            self.element("firewall-ips", key, f"goto {names.firewall}", said)

    def _port_rules(self, port: ServicePort, names: Names) -> None:
        endpoints = port.endpoints
        if names.internal_reachable and changes.ENDPOINT_MAPS not in self.release:
            self._internal(port, names)
        if endpoints.exist and port.externally_accessible:
            self._external(port, names)
        self._firewall_rules(port, names)
        for target in endpoints.reachable if port.affinity_seconds else ():
            affinity = f"affinity-{names.endpoint(target)}"
            self.affinities[affinity] = None
            self.lines.append(
                f"add set {self.table} {affinity} {{ type {self.address} ;"
                f" flags dynamic,timeout ; timeout {port.affinity_seconds}s ; }}"
            )
        if endpoints.cluster:
            self._balance(port, names, names.cluster, endpoints.cluster)
        if endpoints.local:
            self._balance(port, names, names.local, endpoints.local)
        for target in self._chained(port):
            self._endpoint(port, names, target)

    def _firewall_rules(self, port: ServicePort, names: Names) -> None:
        if port.load_balancer_ips and port.source_ranges:
            sources = [*port.source_ranges]
            if self.options.inside(port.source_ranges):
                sources += port.load_balancer_ips
            self.rule(names.firewall, f"{self.ip} saddr != {{ {' , '.join(sources)} }} drop")

    def _internal(self, port: ServicePort, names: Names) -> None:
        """Masquerade what comes to the cluster IP from outside of the cluster; up to v1.35."""
        match = f"{self.ip} daddr {port.cluster_ip}"
        if changes.MARKS_ANY_PORT not in self.release:
            match += f" {port.protocol} dport {port.port}"
        if self.options.masquerade_all:
            self.rule(names.internal, f"{match} {self.mark}")
        elif self.from_elsewhere:
            self.rule(names.internal, f"{match} {self.from_elsewhere} {self.mark}")

    def _external(self, port: ServicePort, names: Names) -> None:
        """Write the chain of what comes by node port, load balancer or external IP."""
        if not port.external_local:
            self.rule(names.external, self.mark, "masquerade" if changes.ENDPOINT_MAPS in self.release else None)
        else:
            if self.from_pods:
                self.rule(names.external, f"{self.from_pods} goto {names.cluster}", "short-circuit pod traffic")
            self.rule(names.external, f"fib saddr type local {self.mark}", "masquerade local traffic")
            self.rule(names.external, f"fib saddr type local goto {names.cluster}", "short-circuit local traffic")
        if names.external_reachable:
            self.rule(names.external, f"goto {names.local if port.external_local else names.cluster}")

    def _balance(self, port: ServicePort, names: Names, chain: str, targets: tuple[Target, ...]) -> None:
        """Write the rules that choose an endpoint: the one that the client had before, else any."""
        choice = f"numgen random mod {len(targets)}"
        if changes.ENDPOINT_MAPS in self.release and not port.affinity_seconds:
            elements = " , ".join([f"{i} : {one.address} . {one.port}" for i, one in enumerate(targets)])
            self.rule(
                chain,
                f"meta l4proto {port.protocol} dnat {self.ip} addr . port to {choice} map {{ {elements} }}",
            )
            return
        endpoints = [names.endpoint(target) for target in targets]
        if port.affinity_seconds:
            for name in endpoints:
                self.rule(chain, f"{self.ip} saddr @affinity-{name} goto endpoint-{name}")
        elements = " , ".join([f"{i} : goto endpoint-{name}" for i, name in enumerate(endpoints)])
        self.rule(chain, f"{choice} vmap {{ {elements} }}")

    def _endpoint(self, port: ServicePort, names: Names, target: Target) -> None:
        name = names.endpoint(target)
        chain = f"endpoint-{name}"
        if changes.ENDPOINT_MAPS not in self.release:
            self.rule(chain, f"{self.ip} saddr {target.address} {self.mark}")
        if port.affinity_seconds:
            self.rule(chain, f"update @affinity-{name} {{ {self.ip} saddr }}")
        self.rule(chain, f"meta l4proto {port.protocol} dnat to {target.text}")
