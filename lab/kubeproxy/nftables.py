"""nftables mode: the transaction that kube-proxy gives to nft.

Source: ``pkg/proxy/nftables/proxier.go`` of v1.31 to v1.35; for v1.36, pull requests #135800 and #136499 and
what ``nft list`` prints on such nodes. From v1.36 there is no mark-for-masquerade, no chain for an endpoint
without affinity, and one set of connections that come back to where they started.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import InputError
from lab.kubeproxy import changes
from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.services import ServicePort, Target, changed_services, hashed, service_ports
from lab.words import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.topology.kubernetes import EndpointSlice, Service

TABLE = "kube-proxy"

_MARK = "0x00004000"  # --iptables-masquerade-bit has no effect here

_NAME_LENGTH = 240
"""Longest name without its prefix (``chainNameBaseLengthMax``): nft takes 256, the prefix may have 16."""


def render(services: Iterable[Service], endpoint_slices: Iterable[EndpointSlice], options: ProxyOptions) -> str:
    """Write all rules as one transaction, as kube-proxy does in its first sync.

    It can be loaded where the table exists already: what is in it is replaced, but affinities stay, and
    the chains and affinity sets of services that are gone.

    :raises InputError: for a version that is not known or has no nftables mode, and for services that claim
        the same address and port.
    """
    if changes.NFT_BETA not in options.release:
        message = f"kube-proxy {options.version} has no nftables mode that is known here"
        raise InputError(message, cure=f"take v1.{changes.NFT_BETA.minor} or later")
    ports = service_ports(services, endpoint_slices, options)
    writer = _Writer(options)
    writer.write_setup()
    for port in ports:
        writer.write_port(port)
    return writer.text()


@dataclass(frozen=True)
class NftablesChange:
    """What kube-proxy gives to nft when services or endpoints change.

    :param script: one transaction; chains that are left over lose their rules.
    :param afterwards: deletes those chains; empty where there are none. kube-proxy does so in the first sync
        that is a second later: before Linux 6.2 the kernel takes a moment to see that no map leads to them.
    """

    script: str
    afterwards: str


def sync(before: Sequence[ServicePort], after: Sequence[ServicePort], options: ProxyOptions) -> NftablesChange:
    """Write kube-proxy's partial sync: the chains of the services that changed, and the elements that differ.

    :param before: the ports that the loaded rules are for, of :func:`~lab.kubeproxy.services.service_ports`.
    :param after: the ports that there are now.
    """
    changed = changed_services(before, after)
    old, new = _Writer(options), _Writer(options)
    for writer, ports in ((old, before), (new, after)):
        for port in ports:
            writer.write_port(port, chains=port.service in changed)
    table, lines = new.table, [line for line in new.lines if line.split(" ", 2)[1] != "element"]
    for container, elements in new.elements.items():
        loaded = old.elements.get(container, {})
        for key, element in elements.items():
            if loaded.get(key) != element:
                if key in loaded:
                    lines.append(f"delete element {table} {container} {{ {key} }}")
                lines.append(f"add element {table} {container} {{ {element} }}")
    stale = [name for name in old.chains if name not in new.chains]
    lines += [f"flush chain {table} {name}" for name in stale]
    lines += [f"delete set {table} {name}" for name in old.affinities if name not in new.affinities]
    for container, elements in old.elements.items():
        left = new.elements.get(container, {})
        lines += [f"delete element {table} {container} {{ {key} }}" for key in elements if key not in left]
    afterwards = [f"delete chain {table} {name}" for name in stale]
    return NftablesChange("\n".join([*lines, ""]), "\n".join([*afterwards, ""]) if afterwards else "")


class _Writer:
    """Writes the lines of one transaction."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._release = options.release
        ipv4 = options.family is Family.IPV4
        self._ip = "ip" if ipv4 else "ip6"
        self._address = "ipv4_addr" if ipv4 else "ipv6_addr"
        self.table = f"{self._ip} {TABLE}"
        self.lines: list[str] = []
        # What was written, for a sync to compare with: elements by container and key, the rest by name.
        self.elements: dict[str, dict[str, str]] = {}
        self.chains: dict[str, None] = {}
        self.affinities: dict[str, None] = {}
        # From v1.36 the mark is set where the jump to the chain was.
        self._mark = (
            f"mark set mark or {_MARK}" if changes.ENDPOINT_MAPS in self._release else "jump mark-for-masquerade"
        )
        self._from_pods, self._from_elsewhere = self._pods_matches()

    def _pods_matches(self) -> tuple[str | None, str | None]:
        """Return the matches of what local pods send, and of what others do; None where they are not told."""
        match = self._options.pods_match
        if match is None:
            return None, None
        option, value = match
        if option == "-s":
            return f"{self._ip} saddr {value}", f"{self._ip} saddr != {value}"
        key = "iifname" if changes.INTERFACE_BY_NAME in self._release else "iif"
        name = f'"{value.removesuffix("+")}{"*" if value.endswith("+") else ""}"'
        return f"{key} {name}", f"{key} != {name}"

    def text(self) -> str:
        return "\n".join([*self.lines, ""])

    def _rule(self, chain: str, rule: str, comment: str | None = None) -> None:
        said = f' comment "{comment}"' if comment else ""
        self.lines.append(f"add rule {self.table} {chain} {rule}{said}")

    def _chain(self, name: str) -> None:
        self.chains[name] = None
        self.lines += [f"add chain {self.table} {name}", f"flush chain {self.table} {name}"]

    def _container(self, kind: str, name: str, contents: str, comment: str) -> None:
        self.lines.append(f'add {kind} {self.table} {name} {{ type {contents} ; comment "{comment}" ; }}')
        self.lines.append(f"flush {kind} {self.table} {name}")

    def _element(self, container: str, key: str, value: str = "", comment: str = "") -> None:
        known = self.elements.setdefault(container, {})
        if key not in known:  # ports share a cluster IP, services share endpoints
            known[key] = f"{key}{comment}{value and f' : {value}'}"
            self.lines.append(f"add element {self.table} {container} {{ {known[key]} }}")

    def write_setup(self) -> None:
        """Write what is the same for all services."""
        lines, table = self.lines, self.table
        lines.append(f'add table {table} {{ comment "rules for kube-proxy" ; }}')
        base_chains, jumps = _layout(after_dnat=changes.FILTERS_AFTER_DNAT in self._release)
        for name, _, _, _ in base_chains:  # made anew, as a base chain's priority cannot be changed
            lines += [f"add chain {table} {name}", f"delete chain {table} {name}"]
        for name, kind, hook, priority in base_chains:
            lines.append(f"add chain {table} {name} {{ type {kind} hook {hook} priority {priority} ; }}")
            lines.append(f"flush chain {table} {name}")
        for name in dict.fromkeys(target for _, target, _ in jumps):
            self._chain(name)
        for source, target, condition in jumps:
            self._rule(source, f"{condition}jump {target}")
        self._masquerading()
        self._cluster_ips()
        self._endpoints_checks()
        verdicts = f"{self._address} . inet_proto . inet_service : verdict"
        self._container("map", "firewall-ips", verdicts, "destinations that are subject to LoadBalancerSourceRanges")
        self._rule("firewall-check", f"{self._ip} daddr . meta l4proto . th dport vmap @firewall-ips")
        self._container("map", "service-ips", verdicts, "ClusterIP, ExternalIP and LoadBalancer IP traffic")
        self._container("map", "service-nodeports", "inet_proto . inet_service : verdict", "NodePort traffic")
        if changes.ENDPOINT_MAPS in self._release:
            if self._options.masquerade_all:
                comment = "masquerade all clusterIP traffic"
                self._rule("services", f"{self._ip} daddr @cluster-ips {self._mark}", comment)
            elif self._from_elsewhere:
                comment = "masquerade clusterIP traffic from outside cluster"
                match = f"{self._ip} daddr @cluster-ips {self._from_elsewhere}"
                self._rule("services", f"{match} {self._mark}", comment)
        self._rule("services", f"{self._ip} daddr . meta l4proto . th dport vmap @service-ips")
        local = "" if self._node_port_ips() is not None else "fib daddr type local "
        self._rule("services", f"{local}{self._node_ports_match()} meta l4proto . th dport vmap @service-nodeports")

    def _masquerading(self) -> None:
        mark = _MARK
        if changes.ENDPOINT_MAPS in self._release:
            connection = f"{self._address} . {self._address} . inet_proto . inet_service"
            self._container("set", "hairpin-connections", connection, "service hairpin connections")
            self._rule("masquerading", f"mark and {mark} != 0 mark set mark xor {mark} masquerade fully-random")
            self._rule(
                "masquerading",
                f"ct status dnat {self._ip} saddr . {self._ip} daddr . meta l4proto . th dport"
                " @hairpin-connections masquerade fully-random",
            )
            return
        self._chain("mark-for-masquerade")
        self._rule("mark-for-masquerade", f"mark set mark or {mark}")
        self._rule("masquerading", f"mark and {mark} == 0 return")
        self._rule("masquerading", f"mark set mark xor {mark}")
        self._rule("masquerading", "masquerade fully-random")

    def _cluster_ips(self) -> None:
        self._container("set", "cluster-ips", self._address, "Active ClusterIPs")
        self._rule(
            "cluster-ips-check",
            f"{self._ip} daddr @cluster-ips reject",
            "Reject traffic to invalid ports of ClusterIPs",
        )
        ranges = [cidr for cidr in self._options.service_cidrs if self._options.of_family(cidr)]
        if ranges and changes.DROPS_UNALLOCATED in self._release:
            self._rule(
                "cluster-ips-check",
                f"{self._ip} daddr {{ {','.join(ranges)} }} drop",
                "Drop traffic to unallocated ClusterIPs",
            )

    def _endpoints_checks(self) -> None:
        table, addresses = self.table, self._node_port_ips()
        self._container("set", "nodeport-ips", self._address, "IPs that accept NodePort traffic")
        if addresses is None:
            self.lines.append(f"delete set {table} nodeport-ips")
        else:
            for address in addresses:
                self._element("nodeport-ips", address)
        self._container(
            "map",
            "no-endpoint-services",
            f"{self._address} . inet_proto . inet_service : verdict",
            "vmap to drop or reject packets to services with no endpoints",
        )
        self._container(
            "map",
            "no-endpoint-nodeports",
            "inet_proto . inet_service : verdict",
            "vmap to drop or reject packets to service nodeports with no endpoints",
        )
        comment = "helper for @no-endpoint-services / @no-endpoint-nodeports"
        self.lines.append(f'add chain {table} reject-chain {{ comment "{comment}" ; }}')
        self.lines.append(f"flush chain {table} reject-chain")
        self._rule("reject-chain", "reject")
        self._rule(
            "service-endpoints-check",
            f"{self._ip} daddr . meta l4proto . th dport vmap @no-endpoint-services",
        )
        self._rule(
            "nodeport-endpoints-check",
            f"{self._node_ports_match()} meta l4proto . th dport vmap @no-endpoint-nodeports",
        )

    def _node_port_ips(self) -> tuple[str, ...] | None:
        """Return who takes node ports: the primary address unless told otherwise; never 127.0.0.1."""
        if self._options.node_port_addresses:
            addresses = self._options.node_port_ips
        else:
            primary = self._options.primary_address
            addresses = (primary,) if primary else ()
        return None if addresses is None else tuple(ip for ip in addresses if not ip.startswith("127."))

    def _node_ports_match(self) -> str:
        if self._node_port_ips() is not None:
            return f"{self._ip} daddr @nodeport-ips"
        return f"{self._ip} daddr != {'127.0.0.0/8' if self._ip == 'ip' else '::1'}"

    def write_port(self, port: ServicePort, *, chains: bool = True) -> None:
        """Write the elements of one service port, and its chains if wanted."""
        names = _Names(port)
        if chains:
            self._port_chains(port, names)
        self._port_elements(port, names)
        if chains:
            self._port_rules(port, names)

    def _chained(self, port: ServicePort) -> tuple[Target, ...]:
        """Return the endpoints that have chains of their own."""
        chained = port.affinity_seconds or changes.ENDPOINT_MAPS not in self._release
        return port.endpoints.reachable if chained else ()

    def _port_chains(self, port: ServicePort, names: _Names) -> None:
        endpoints = port.endpoints
        for target in self._chained(port):
            self._chain(f"endpoint-{names.endpoint(target)}")
        if endpoints.cluster:
            self._chain(names.cluster)
        if endpoints.local:
            self._chain(names.local)
        if endpoints.exist and port.externally_accessible:
            self._chain(names.external)
        if port.load_balancer_ips and port.source_ranges:
            self._chain(names.firewall)

    def _port_elements(self, port: ServicePort, names: _Names) -> None:
        """Write the elements that send a port's traffic on its way, or refuse it."""
        exist, said = port.endpoints.exist, f' comment "{port.name}"'
        if changes.ENDPOINT_MAPS in self._release:
            for target in port.endpoints.reachable:
                if target.local:
                    ip = target.address
                    self._element("hairpin-connections", f"{ip} . {ip} . {port.protocol} . {target.port}")
        self._element("cluster-ips", port.cluster_ip)
        key = f"{port.cluster_ip} . {port.protocol} . {port.port}"
        if names.internal_reachable:
            self._element("service-ips", key, f"goto {names.internal}")
        else:
            self._element("no-endpoint-services", key, names.refusal, said)
        for ip in (*port.external_ips, *port.load_balancer_ips):
            key = f"{ip} . {port.protocol} . {port.port}"
            if exist:
                self._element("service-ips", key, f"goto {names.external}")
            if not names.external_reachable:
                self._element("no-endpoint-services", key, names.refusal, said)
        if port.source_ranges:
            for ip in port.load_balancer_ips:
                key = f"{ip} . {port.protocol} . {port.port}"
                self._element("firewall-ips", key, f"goto {names.firewall}")
        if port.node_port:
            key = f"{port.protocol} . {port.node_port}"
            if exist:
                self._element("service-nodeports", key, f"goto {names.external}")
            if not names.external_reachable:
                self._element("no-endpoint-nodeports", key, names.refusal, said)

    def _port_rules(self, port: ServicePort, names: _Names) -> None:
        endpoints = port.endpoints
        if names.internal_reachable and changes.ENDPOINT_MAPS not in self._release:
            self._internal(port, names)
        if endpoints.exist and port.externally_accessible:
            self._external(port, names)
        if port.load_balancer_ips and port.source_ranges:
            sources = [*port.source_ranges]
            if self._options.inside(port.source_ranges):
                sources += port.load_balancer_ips
            self._rule(names.firewall, f"{self._ip} saddr != {{ {' , '.join(sources)} }} drop")
        for target in endpoints.reachable if port.affinity_seconds else ():
            affinity = f"affinity-{names.endpoint(target)}"
            self.affinities[affinity] = None
            self.lines.append(
                f"add set {self.table} {affinity} {{ type {self._address} ;"
                f" flags dynamic,timeout ; timeout {port.affinity_seconds}s ; }}"
            )
        if endpoints.cluster:
            self._balance(port, names, names.cluster, endpoints.cluster)
        if endpoints.local:
            self._balance(port, names, names.local, endpoints.local)
        for target in self._chained(port):
            self._endpoint(port, names, target)

    def _internal(self, port: ServicePort, names: _Names) -> None:
        """Masquerade what comes to the cluster IP from outside of the cluster; up to v1.35."""
        match = f"{self._ip} daddr {port.cluster_ip}"
        if changes.MARKS_ANY_PORT not in self._release:
            match += f" {port.protocol} dport {port.port}"
        if self._options.masquerade_all:
            self._rule(names.internal, f"{match} {self._mark}")
        elif self._from_elsewhere:
            self._rule(names.internal, f"{match} {self._from_elsewhere} {self._mark}")

    def _external(self, port: ServicePort, names: _Names) -> None:
        """Write the chain of what comes by node port, load balancer or external IP."""
        if not port.external_local:
            self._rule(names.external, self._mark)
        else:
            if self._from_pods:
                self._rule(names.external, f"{self._from_pods} goto {names.cluster}", "short-circuit pod traffic")
            self._rule(names.external, f"fib saddr type local {self._mark}", "masquerade local traffic")
            self._rule(names.external, f"fib saddr type local goto {names.cluster}", "short-circuit local traffic")
        if names.external_reachable:
            self._rule(names.external, f"goto {names.local if port.external_local else names.cluster}")

    def _balance(self, port: ServicePort, names: _Names, chain: str, targets: tuple[Target, ...]) -> None:
        """Write the rules that choose an endpoint: the one that the client had before, else any."""
        choice = f"numgen random mod {len(targets)}"
        if changes.ENDPOINT_MAPS in self._release and not port.affinity_seconds:
            elements = " , ".join([f"{i} : {one.address} . {one.port}" for i, one in enumerate(targets)])
            self._rule(
                chain,
                f"meta l4proto {port.protocol} dnat {self._ip} addr . port to {choice} map {{ {elements} }}",
            )
            return
        endpoints = [names.endpoint(target) for target in targets]
        if port.affinity_seconds:
            for name in endpoints:
                self._rule(chain, f"{self._ip} saddr @affinity-{name} goto endpoint-{name}")
        elements = " , ".join([f"{i} : goto endpoint-{name}" for i, name in enumerate(endpoints)])
        self._rule(chain, f"{choice} vmap {{ {elements} }}")

    def _endpoint(self, port: ServicePort, names: _Names, target: Target) -> None:
        name = names.endpoint(target)
        chain = f"endpoint-{name}"
        if changes.ENDPOINT_MAPS not in self._release:
            self._rule(chain, f"{self._ip} saddr {target.address} {self._mark}")
        if port.affinity_seconds:
            self._rule(chain, f"update @affinity-{name} {{ {self._ip} saddr }}")
        self._rule(chain, f"meta l4proto {port.protocol} dnat to {target.text}")


class _Names:
    """A port's chain names, and what they are used for."""

    def __init__(self, port: ServicePort) -> None:
        self._base = f"{port.service}/{port.protocol}/{port.port_name}"
        name = _named(self._base)
        endpoints = port.endpoints
        self.cluster = f"service-{name}"
        self.local = f"local-{name}"
        self.external = f"external-{name}"
        self.firewall = f"firewall-{name}"
        self.internal = self.local if port.internal_local else self.cluster
        self.internal_reachable = port.internal_reachable
        self.external_reachable = port.external_reachable
        self.refusal = "drop" if endpoints.exist else "goto reject-chain"
        self._endpoints: dict[str, str] = {}

    def endpoint(self, target: Target) -> str:
        """Return the name, without its prefix, of an endpoint's chain and of its affinity set."""
        name = self._endpoints.get(target.text)
        if name is None:
            name = _named(f"{self._base}__{target.address.replace(':', '.')}/{target.port}")
            self._endpoints[target.text] = name
        return name


def _named(text: str) -> str:
    """Put its hash before a text, and cut it where it is too long for nft."""
    name = f"{hashed(text, 8)}-{text}"
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 3] + "..."


def _layout(*, after_dnat: bool) -> tuple[tuple[tuple[str, str, str, int], ...], tuple[tuple[str, str, str], ...]]:
    """Return base chains (name, type, hook, priority) and jumps (from, to, condition)."""
    new = "ct state new "
    nat = (
        ("nat-prerouting", "nat", "prerouting", -100),
        ("nat-output", "nat", "output", -100),
        ("nat-postrouting", "nat", "postrouting", 100),
    )
    dispatch = (
        ("nat-output", "services", ""),
        ("nat-prerouting", "services", ""),
        ("nat-postrouting", "masquerading", ""),
    )
    endpoints = (
        ("filter-input", "nodeport-endpoints-check", new),
        ("filter-input", "service-endpoints-check", new),
        ("filter-forward", "service-endpoints-check", new),
        ("filter-output", "service-endpoints-check", new),
    )
    if after_dnat:
        base_chains = (
            ("filter-prerouting-pre-dnat", "filter", "prerouting", -110),
            ("filter-output-pre-dnat", "filter", "output", -110),
            ("filter-input", "filter", "input", 0),
            ("filter-forward", "filter", "forward", 0),
            ("filter-output", "filter", "output", 0),
            *nat,
        )
        jumps = (
            *endpoints,
            ("filter-prerouting-pre-dnat", "firewall-check", new),
            ("filter-output-pre-dnat", "firewall-check", new),
            *dispatch,
            ("filter-forward", "cluster-ips-check", new),
            ("filter-output", "cluster-ips-check", new),
        )
        return base_chains, jumps
    base_chains = (
        ("filter-prerouting", "filter", "prerouting", -110),
        ("filter-input", "filter", "input", -110),
        ("filter-forward", "filter", "forward", -110),
        ("filter-output", "filter", "output", -110),
        ("filter-output-post-dnat", "filter", "output", -90),
        *nat,
    )
    jumps = (
        *endpoints,
        ("filter-prerouting", "firewall-check", new),
        ("filter-output", "firewall-check", new),
        *dispatch,
        ("filter-forward", "cluster-ips-check", new),
        ("filter-output-post-dnat", "cluster-ips-check", new),
    )
    return base_chains, jumps
