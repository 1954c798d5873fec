# SPDX-License-Identifier: MIT
"""iptables mode: the text that kube-proxy gives to iptables-restore.

The chains are those of ``pkg/proxy/iptables/proxier.go`` since v1.24; up to v1.23 they have their own module,
:mod:`lab.kubeproxy.iptables_xlb`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.kubeproxy import changes, iptables_xlb
from lab.kubeproxy.jumps import jumps, kubelets
from lab.kubeproxy.options import LOCALHOST_ACCOUNT, ProxyOptions
from lab.kubeproxy.services import MANY_ENDPOINTS, ServicePort, Target, changed_services, hashed, service_ports
from lab.kubeproxy.tables import (
    LOCALHOST_GUARD,
    IptablesRules,
    Tables,
    balance,
    chain,
    delete,
    forward,
    health_check,
    node_ports_entry,
    postrouting,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.kubernetes.objects import EndpointSlice, Service


def render(
    services: Iterable[Service], endpoint_slices: Iterable[EndpointSlice], options: ProxyOptions
) -> IptablesRules:
    """Write all rules, as kube-proxy does in its first sync.

    The nfacct objects that ``options.accounts`` names have to exist when the rules are loaded.

    :raises InputError: for an unknown version, and for services that claim the same address and port.
    """
    ports = service_ports(services, endpoint_slices, options)
    if changes.EXTERNAL_CHAINS in options.release:
        tables = _Writer(options, ports).write(ports, {port.service for port in ports}, ())
    else:
        tables = iptables_xlb.write(ports, options)
    return IptablesRules(kubelets(options), tables.text(), jumps(options))


def sync(before: Sequence[ServicePort], after: Sequence[ServicePort], options: ProxyOptions) -> str:
    """Write what kube-proxy gives to iptables-restore when services or endpoints change.

    Its partial sync: the entries of all ports, the chains of the services that changed, and the end of the
    chains that are left over. Up to v1.23 everything is written anew.

    :param before: the ports that the loaded rules are for, of :func:`~lab.kubeproxy.services.service_ports`.
    :param after: the ports that there are now.
    """
    if changes.EXTERNAL_CHAINS not in options.release:
        return iptables_xlb.sync(before, after, options)
    changed = changed_services(before, after)
    kept = set(_chains_of(after, changed, options))
    gone = [line for line in _chains_of(before, changed, options) if line not in kept]
    return _Writer(options, after).write(after, changed, gone).text()


def _chains_of(ports: Sequence[ServicePort], services: set[str], options: ProxyOptions) -> list[str]:
    """Return the declarations of the chains that belong to some services."""
    writer = _Writer(options, ports)
    for port in ports:
        if port.service in services:
            writer.write_chains(port, _Names(port, options))
    return writer.tables.nat_chains


class _Writer:
    """Writes the lines of one sync."""

    def __init__(self, options: ProxyOptions, ports: Sequence[ServicePort]) -> None:
        self._options = options
        self._release = options.release
        self._drops_unmarked = changes.PROXY_FIREWALL in options.release  # in the filter table, not by a mark
        self._comments = sum(port.endpoints.total for port in ports) <= MANY_ENDPOINTS
        match = options.pods_match
        self._from_pods = " ".join(match) if match else None
        self._counts_localhost = LOCALHOST_ACCOUNT in options.accounts
        self.tables = Tables()

    def write(self, ports: Sequence[ServicePort], changed: set[str], gone: Sequence[str]) -> Tables:
        """Write what is common and the entries of all ports, and the chains of the changed services.

        :param gone: declarations of the chains to delete.
        """
        self._head()
        for port in ports:
            names = _Names(port, self._options)
            self._entries(port, names)
            if port.service in changed:
                self.write_chains(port, names)
        delete(self.tables, gone)
        self.tables.nat_rules += node_ports_entry(self._options)
        self.tables.filter_rules += forward(self._options)
        return self.tables

    def _head(self) -> None:
        tables = self.tables
        names = ["SERVICES", "EXTERNAL-SERVICES", "FORWARD", "NODEPORTS"]
        if changes.PROXY_FIREWALL in self._release:
            names.append("PROXY-FIREWALL")
        tables.filter_chains += [chain(f"KUBE-{name}") for name in names]
        tables.nat_chains += [chain(f"KUBE-{name}") for name in ("SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ")]
        tables.nat_rules += postrouting(self._options)
        if changes.OWN_FIREWALL in self._release and self._options.localhost_opened:
            tables.filter_chains.append(chain("KUBE-FIREWALL"))
            tables.filter_rules.append(LOCALHOST_GUARD)

    def _entries(self, port: ServicePort, names: _Names) -> None:
        """Write the rules that catch a port's traffic, or refuse it."""
        filter_rules, nat_rules = self.tables.filter_rules, self.tables.nat_rules
        name, protocol = port.name, port.protocol
        match = f"-m {protocol} -p {protocol}"
        exist = port.endpoints.exist
        cluster_ip = f"{match} -d {port.cluster_ip} --dport {port.port}"
        if names.internal_reachable:
            nat_rules.append(
                f'-A KUBE-SERVICES -m comment --comment "{name} cluster IP" {cluster_ip} -j {names.internal}'
            )
        else:
            filter_rules.append(f"-A KUBE-SERVICES {names.refusal[0]} {cluster_ip} -j {names.refusal[1]}")
        if port.health_check_node_port:
            filter_rules.append(health_check(port))
        if not port.externally_accessible:
            return
        comment, verdict = names.refusal
        for ip in port.external_ips:
            destination = f"{match} -d {ip} --dport {port.port}"
            if exist:
                nat_rules.append(
                    f'-A KUBE-SERVICES -m comment --comment "{name} external IP" {destination} -j {names.external}'
                )
            if not names.external_reachable:
                filter_rules.append(f"-A KUBE-EXTERNAL-SERVICES {comment} {destination} -j {verdict}")
        for ip in port.load_balancer_ips:
            destination = f"{match} -d {ip} --dport {port.port}"
            if exist:
                target = names.firewall if names.has_firewall else names.external
                nat_rules.append(
                    f'-A KUBE-SERVICES -m comment --comment "{name} loadbalancer IP" {destination} -j {target}'
                )
            if names.has_firewall and self._drops_unmarked:
                filter_rules.append(
                    f'-A KUBE-PROXY-FIREWALL -m comment --comment "{name} traffic not accepted by'
                    f' {names.firewall}" {destination} -j DROP'
                )
        if not names.external_reachable:
            filter_rules += [
                f"-A KUBE-EXTERNAL-SERVICES {comment} {match} -d {ip} --dport {port.port} -j {verdict}"
                for ip in port.load_balancer_ips
            ]
        if port.node_port:
            self._node_port(port, names, match)

    def _node_port(self, port: ServicePort, names: _Names, match: str) -> None:
        if port.endpoints.exist:
            comment = f"-m comment --comment {port.name}"
            if self._counts_localhost:
                self.tables.nat_rules.append(
                    f"-A KUBE-NODEPORTS {comment} {match} -d 127.0.0.0/8 --dport {port.node_port}"
                    f" -m nfacct --nfacct-name {LOCALHOST_ACCOUNT} -j {names.external}"
                )
            self.tables.nat_rules.append(
                f"-A KUBE-NODEPORTS {comment} {match} --dport {port.node_port} -j {names.external}"
            )
        if not names.external_reachable:
            comment, verdict = names.refusal
            self.tables.filter_rules.append(
                f"-A KUBE-EXTERNAL-SERVICES {comment} -m addrtype --dst-type LOCAL {match}"
                f" --dport {port.node_port} -j {verdict}"
            )

    def write_chains(self, port: ServicePort, names: _Names) -> None:
        """Write a port's own chains."""
        nat_chains, nat_rules = self.tables.nat_chains, self.tables.nat_rules
        endpoints = port.endpoints
        if names.internal_reachable and (self._options.masquerade_all or self._from_pods):
            # Traffic to a cluster IP from outside of the cluster: the endpoint may be on another node.
            sources = "" if self._options.masquerade_all else f" ! {self._from_pods}"
            nat_rules.append(
                f'-A {names.internal} -m comment --comment "{port.name} cluster IP" -m {port.protocol}'
                f" -p {port.protocol} -d {port.cluster_ip} --dport {port.port}{sources} -j KUBE-MARK-MASQ"
            )
        if endpoints.exist and port.externally_accessible:
            nat_chains.append(chain(names.external))
            self._external(port, names)
            if names.has_firewall:
                nat_chains.append(chain(names.firewall))
                self._firewall(port, names)
        chain_names = {
            target.text: "KUBE-SEP-" + hashed(f"{port.name}{port.protocol}{target.text}", 16)
            for target in endpoints.reachable
        }
        if endpoints.cluster:
            nat_chains.append(chain(names.cluster))
            self._balance(port, names.cluster, endpoints.cluster, chain_names)
        if endpoints.local:
            nat_chains.append(chain(names.local))
            self._balance(port, names.local, endpoints.local, chain_names)
        elif names.marks_refused:
            nat_chains.append(chain(names.local))
            nat_rules.append(
                f'-A {names.local} -m comment --comment "{port.name} has no local endpoints" -j KUBE-MARK-DROP'
            )
        comment = f" -m comment --comment {port.name}" if self._comments else ""
        for target in endpoints.reachable:
            name = chain_names[target.text]
            recent = f" -m recent --name {name} --set" if port.affinity_seconds else ""
            nat_chains.append(f":{name} - [0:0]")
            nat_rules.append(f"-A {name}{comment} -s {target.address} -j KUBE-MARK-MASQ")
            nat_rules.append(
                f"-A {name}{comment}{recent} -m {port.protocol} -p {port.protocol}"
                f" -j DNAT --to-destination {target.text}"
            )

    def _external(self, port: ServicePort, names: _Names) -> None:
        """Write the chain of what comes by node port, load balancer or external IP."""
        nat_rules, name = self.tables.nat_rules, port.name
        start, outside = f"-A {names.external} -m comment --comment", f"for {name} external destinations"
        if not port.external_local:
            nat_rules.append(f'{start} "masquerade traffic {outside}" -j KUBE-MARK-MASQ')
        else:
            if self._from_pods:
                nat_rules.append(f'{start} "pod traffic {outside}" {self._from_pods} -j {names.cluster}')
            local = "-m addrtype --src-type LOCAL"
            nat_rules += [
                f'{start} "masquerade LOCAL traffic {outside}" {local} -j KUBE-MARK-MASQ',
                f'{start} "route LOCAL traffic {outside}" {local} -j {names.cluster}',
            ]
        if names.external_reachable:
            policy = names.local if port.external_local else names.cluster
            nat_rules.append(f"-A {names.external} -j {policy}")

    def _firewall(self, port: ServicePort, names: _Names) -> None:
        """Write the chain that lets a load balancer's source ranges through."""
        start = f'-A {names.firewall} -m comment --comment "{port.name} loadbalancer IP"'
        # A balancer's address is often the node's own too: then its requests come from that very address.
        own = port.load_balancer_ips if self._options.inside(port.source_ranges) else ()
        rules = self.tables.nat_rules
        if not self._drops_unmarked:
            for ip in port.load_balancer_ips:
                sources = [*port.source_ranges, *([ip] if own else [])]
                rules += [f"{start} -s {source} -j {names.external}" for source in sources]
                rules.append(f"{start} -j KUBE-MARK-DROP")
            return
        rules += [f"{start} -s {source} -j {names.external}" for source in (*port.source_ranges, *own)]
        if changes.FIREWALL_COMMENT in self._release:
            rules.append(
                f'-A {names.firewall} -m comment --comment "other traffic to {port.name} will be dropped by'
                ' KUBE-PROXY-FIREWALL"'
            )

    def _balance(self, port: ServicePort, name: str, targets: tuple[Target, ...], chain_names: dict[str, str]) -> None:
        """Write the rules that choose an endpoint: the one that the client had before, else any."""
        comments = (
            [f' -m comment --comment "{port.name} -> {target.text}"' for target in targets]
            if self._comments
            else [""] * len(targets)
        )
        names = [chain_names[target.text] for target in targets]
        if port.affinity_seconds:
            self.tables.nat_rules += [
                f"-A {name}{comment} -m recent --name {endpoint} --rcheck --seconds {port.affinity_seconds}"
                f" --reap -j {endpoint}"
                for comment, endpoint in zip(comments, names, strict=True)
            ]
        self.tables.nat_rules += [
            f"-A {name}{comment}{match} -j {endpoint}"
            for comment, match, endpoint in zip(comments, balance(targets, self._release), names, strict=True)
        ]


class _Names:
    """A port's chain names, and what they are used for."""

    def __init__(self, port: ServicePort, options: ProxyOptions) -> None:
        code = hashed(port.name + port.protocol, 16)
        endpoints = port.endpoints
        exist = endpoints.exist
        self.cluster = f"KUBE-SVC-{code}"
        self.local = f"KUBE-SVL-{code}"
        self.external = f"KUBE-EXT-{code}"
        self.firewall = f"KUBE-FW-{code}"
        self.internal = self.local if port.internal_local else self.cluster
        self.has_firewall = exist and bool(port.load_balancer_ips and port.source_ranges)
        self.internal_reachable = port.internal_reachable
        self.external_reachable = port.external_reachable
        self.marks_refused = False
        if changes.PROXY_FIREWALL not in options.release:
            # v1.24: a chain leads to what is refused for want of a local endpoint, and marks it.
            self.internal_reachable = self.external_reachable = exist
            uses_local = port.internal_local or (port.external_local and port.externally_accessible)
            self.marks_refused = exist and uses_local and not endpoints.local
        reason, verdict = ("local endpoints", "DROP") if exist else ("endpoints", "REJECT")
        self.refusal = (f'-m comment --comment "{port.name} has no {reason}"', verdict)
