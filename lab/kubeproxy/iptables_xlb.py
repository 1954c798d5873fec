# SPDX-License-Identifier: MIT
"""iptables mode of kube-proxy v1.14 to v1.23, whose chains were others.

Local policy has KUBE-XLB instead of KUBE-SVL and KUBE-EXT, every load balancer has a KUBE-FW, and what is refused is
marked for the kubelet's KUBE-FIREWALL. Source: the dumps, and ``pkg/proxy/iptables/proxier.go`` of v1.15 and v1.23.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.kubeproxy import changes
from lab.kubeproxy.services import MANY_ENDPOINTS, ServicePort, Target, hashed
from lab.kubeproxy.tables import Tables, balance, chain, delete, forward, health_check, node_ports_entry, postrouting
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.options import ProxyOptions


def write(ports: Sequence[ServicePort], options: ProxyOptions) -> Tables:
    """Write all rules."""
    writer = _Writer(ports, options)
    for port in ports:
        writer.write_port(port)
    writer.tables.nat_rules += node_ports_entry(options)
    writer.tables.filter_rules += forward(options)
    return writer.tables


def sync(before: Sequence[ServicePort], after: Sequence[ServicePort], options: ProxyOptions) -> str:
    """Write all rules anew, and the end of the chains that are left over."""
    tables = write(after, options)
    kept = set(tables.nat_chains)
    delete(tables, [line for line in write(before, options).nat_chains if line not in kept])
    return tables.text()


class _Names:
    """A port's chain names."""

    def __init__(self, port: ServicePort) -> None:
        code = hashed(port.name + port.protocol, 16)
        self.service = f"KUBE-SVC-{code}"
        self.local = f"KUBE-XLB-{code}"
        self.firewall = f"KUBE-FW-{code}"


class _Writer:
    """Writes the lines of one sync."""

    def __init__(self, ports: Sequence[ServicePort], options: ProxyOptions) -> None:
        self._options = options
        release = self._release = options.release
        self._host = "/32" if options.family is Family.IPV4 else "/128"
        few = sum(port.endpoints.total for port in ports) <= MANY_ENDPOINTS
        self._comments = changes.ENDPOINT_COMMENTS in release and few
        match = options.pods_match
        self._from_pods = " ".join(match) if match else None
        self.tables = Tables(
            filter_chains=[chain(f"KUBE-{name}") for name in ("SERVICES", "EXTERNAL-SERVICES", "FORWARD")],
            nat_chains=[chain(f"KUBE-{name}") for name in ("SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ")],
            nat_rules=postrouting(options),
        )
        if changes.HEALTH_PORTS in release:
            self.tables.filter_chains.append(chain("KUBE-NODEPORTS"))

    def write_port(self, port: ServicePort) -> None:
        """Write the rules of one service port."""
        tables, names = self.tables, _Names(port)
        match = f"-m {port.protocol} -p {port.protocol}"
        exist = port.endpoints.exist
        if exist:
            tables.nat_chains.append(chain(names.service))
        if port.external_local:
            tables.nat_chains.append(chain(names.local))
        if port.health_check_node_port and changes.HEALTH_PORTS in self._release:
            tables.filter_rules.append(health_check(port))
        if not exist:
            self._refuse(port, match)
            return
        self._cluster_ip(port, names, match)
        self._external_ips(port, names, match)
        self._load_balancer(port, names, match)
        if port.node_port:
            self._node_port(port, names, match)
        self._endpoints(port, names)
        if port.external_local:
            self._local(port, names)

    def _refuse(self, port: ServicePort, match: str) -> None:
        comment, number = f'-m comment --comment "{port.name} has no endpoints"', f"--dport {port.port}"
        balanced = "KUBE-EXTERNAL-SERVICES" if changes.FORWARD_EXTERNAL in self._release else "KUBE-SERVICES"
        catches = [("KUBE-SERVICES", port.cluster_ip)]
        catches += [("KUBE-EXTERNAL-SERVICES", ip) for ip in port.external_ips]
        catches += [(balanced, ip) for ip in port.load_balancer_ips]
        rules = [f"-A {name} {comment} {match} -d {ip}{self._host} {number} -j REJECT" for name, ip in catches]
        if port.node_port:
            rules.append(
                f"-A KUBE-EXTERNAL-SERVICES {comment} -m addrtype --dst-type LOCAL {match}"
                f" --dport {port.node_port} -j REJECT"
            )
        self.tables.filter_rules += rules

    def _marking(self, names: _Names, chain: str, catch: str) -> str:
        """Begin a rule that marks for masquerading: from v1.22 on it stands in the service's chain."""
        return f"-A {names.service if changes.MARKS_IN_SERVICE in self._release else chain} {catch}"

    def _cluster_ip(self, port: ServicePort, names: _Names, match: str) -> None:
        catch = (
            f'-m comment --comment "{port.name} cluster IP" {match} -d {port.cluster_ip}{self._host}'
            f" --dport {port.port}"
        )
        rules = self.tables.nat_rules
        marking = self._marking(names, "KUBE-SERVICES", catch)
        if self._options.masquerade_all:
            rules.append(f"{marking} -j KUBE-MARK-MASQ")
        elif self._from_pods:
            rules.append(f"{marking} ! {self._from_pods} -j KUBE-MARK-MASQ")
        rules.append(f"-A KUBE-SERVICES {catch} -j {names.service}")

    def _external_ips(self, port: ServicePort, names: _Names, match: str) -> None:
        release, rules = self._release, self.tables.nat_rules
        local = port.external_local and changes.EXTERNAL_IP_LOCAL in release
        chosen = names.local if local else names.service
        for ip in port.external_ips:
            catch = f'-m comment --comment "{port.name} external IP" {match} -d {ip}{self._host} --dport {port.port}'
            start = f"-A KUBE-SERVICES {catch}"
            marking = self._marking(names, "KUBE-SERVICES", catch)
            if changes.EXTERNAL_IP_PLAIN in release:
                if not local:
                    from_elsewhere = f" ! {self._from_pods}" if self._from_pods else ""
                    rules.append(f"{marking}{from_elsewhere} -j KUBE-MARK-MASQ")
                rules.append(f"{start} -j {chosen}")
                continue
            if not local:
                rules.append(f"{marking} -j KUBE-MARK-MASQ")
            rules += [
                # What comes neither over a bridge, from a container, nor from the node itself.
                f"{start} -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j {chosen}",
                f"{start} -m addrtype --dst-type LOCAL -j {chosen}",
            ]

    def _load_balancer(self, port: ServicePort, names: _Names, match: str) -> None:
        rules, local = self.tables.nat_rules, port.external_local
        if port.load_balancer_ips:
            self.tables.nat_chains.append(chain(names.firewall))
        for ip in port.load_balancer_ips:
            rules.append(
                f'-A KUBE-SERVICES -m comment --comment "{port.name} loadbalancer IP" {match} -d {ip}{self._host}'
                f" --dport {port.port} -j {names.firewall}"
            )
            start = f'-A {names.firewall} -m comment --comment "{port.name} loadbalancer IP"'
            if not local:
                rules.append(f"{start} -j KUBE-MARK-MASQ")
            sources = [f" -s {cidr}" for cidr in port.source_ranges] or [""]
            if self._options.inside(port.source_ranges):
                sources.append(f" -s {ip}{self._host}")
            rules += [f"{start}{source} -j {names.local if local else names.service}" for source in sources]
            rules.append(f"{start} -j KUBE-MARK-DROP")

    def _node_port(self, port: ServicePort, names: _Names, match: str) -> None:
        catch = f"-m comment --comment {port.name} {match} --dport {port.node_port}"
        start = f"-A KUBE-NODEPORTS {catch}"
        if port.external_local:
            rules = [f"{start} -s {self._options.loopback} -j KUBE-MARK-MASQ", f"{start} -j {names.local}"]
        else:
            marking = self._marking(names, "KUBE-NODEPORTS", catch)
            rules = [f"{marking} -j KUBE-MARK-MASQ", f"{start} -j {names.service}"]
        self.tables.nat_rules += rules

    def _endpoints(self, port: ServicePort, names: _Names) -> None:
        nat_rules, service = self.tables.nat_rules, names.service
        targets = port.endpoints.cluster
        chains = {target.text: _endpoint_chain(port, target) for target in port.endpoints.reachable}
        self.tables.nat_chains += [chain(name) for name in chains.values()]
        comment = f" -m comment --comment {port.name}" if self._comments else ""
        if port.affinity_seconds:
            recent = f"--rcheck --seconds {port.affinity_seconds} --reap"
            nat_rules += [
                f"-A {service}{comment} -m recent --name {name} {recent} -j {name}" for name in chains.values()
            ]
        nat_rules += [
            f"-A {service}{comment}{chance} -j {chains[target.text]}"
            for chance, target in zip(balance(targets, self._release), targets, strict=True)
        ]
        for target in port.endpoints.reachable:
            name = chains[target.text]
            recent = f" -m recent --name {name} --set" if port.affinity_seconds else ""
            nat_rules.append(f"-A {name}{comment} -s {target.address}{self._host} -j KUBE-MARK-MASQ")
            nat_rules.append(
                f"-A {name}{comment}{recent} -m {port.protocol} -p {port.protocol}"
                f" -j DNAT --to-destination {target.text}"
            )

    def _local(self, port: ServicePort, names: _Names) -> None:
        """Write the chain of a service with externalTrafficPolicy Local."""
        release, name = self._release, port.name
        start = f"-A {names.local} -m comment --comment"
        from_node: list[str] = []
        if changes.XLB_FROM_NODE in release:
            match = "-m addrtype --src-type LOCAL"
            from_node = [
                f'{start} "masquerade LOCAL traffic for {name} LB IP" {match} -j KUBE-MARK-MASQ',
                f'{start} "route LOCAL traffic for {name} LB IP to service chain" {match} -j {names.service}',
            ]
        from_pods: list[str] = []
        if self._from_pods:
            comment = '"Redirect pods trying to reach external loadbalancer VIP to clusterIP"'
            from_pods = [f"{start} {comment} {self._from_pods} -j {names.service}"]
        pods_first = changes.XLB_PODS_FIRST in release
        rules = from_pods + from_node if pods_first else from_node + from_pods
        # The service chain has the ready endpoints alone, and so has this one.
        targets = tuple(target for target in port.endpoints.cluster if target.local)
        chains = [_endpoint_chain(port, target) for target in targets]
        if not chains:
            rules.append(f'{start} "{name} has no local endpoints" -j KUBE-MARK-DROP')
        elif port.affinity_seconds:
            recent = f"--rcheck --seconds {port.affinity_seconds} --reap"
            rules += [f"{start} {name} -m recent --name {endpoint} {recent} -j {endpoint}" for endpoint in chains]
        for index, (chance, endpoint) in enumerate(zip(balance(targets, release), chains, strict=True)):
            comment = name if changes.XLB_COMMENTS in release else f'"Balancing rule {index} for {name}"'
            rules.append(f"{start} {comment}{chance} -j {endpoint}")
        self.tables.nat_rules += rules


def _endpoint_chain(port: ServicePort, target: Target) -> str:
    return "KUBE-SEP-" + hashed(f"{port.name}{port.protocol}{target.text}", 16)
