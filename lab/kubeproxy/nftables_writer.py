"""nftables mode: what is written for a Service port, and what is the same for all of them.

Source: ``pkg/proxy/nftables/proxier.go`` of v1.31 to v1.35; for v1.36, pull requests #135800 and #136499 and
what ``nft list`` prints on such nodes. From v1.36 there is no mark-for-masquerade, no chain for an endpoint
without affinity, and one set of connections that come back to where they started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lab.errors import InputError
from lab.kubeproxy import changes
from lab.kubeproxy.faults import refuse_comment
from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.services import ServicePort, Target, hashed
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BaseChain: TypeAlias = tuple[str, str, str, int]
"""Name, type, hook, priority."""

Jump: TypeAlias = tuple[str, str, str]
"""From, to, condition."""

TABLE = "kube-proxy"


def table_of(family: Family) -> str:
    """Return what nft calls kube-proxy's table of a family."""
    return f"{family.nft} {TABLE}"


MARK = "0x00004000"
"""The packet mark that asks for masquerading: ``--iptables-masquerade-bit`` has no effect in this mode."""

_NAME_LENGTH = 240
"""Longest name without its prefix (``chainNameBaseLengthMax``): nft takes 256, the prefix may have 16."""


class Writer:
    """Writes the lines of one transaction."""

    comments = True
    """Whether tables, chains, sets and maps carry comments, besides rules and elements."""

    def __init__(self, options: ProxyOptions) -> None:
        self.options = options
        self.release = options.release
        self.ip = options.family.nft
        self.address = f"{options.family}_addr"
        self.table = table_of(options.family)
        self.lines: list[str] = []
        # What was written, for a sync to compare with: elements by container and key, the rest by name.
        self.elements: dict[str, dict[str, str]] = {}
        self.chains: dict[str, None] = {}
        self.affinities: dict[str, None] = {}
        # From v1.36 the mark is set where the jump to the chain was.
        self.mark = f"mark set mark or {MARK}" if changes.ENDPOINT_MAPS in self.release else "jump mark-for-masquerade"
        self._from_pods, self._from_elsewhere = self._pods_matches()

    def _pods_matches(self) -> tuple[str | None, str | None]:
        """Return the matches of what local pods send, and of what others do; None where they are not told."""
        match = self.options.pods_match
        if match is None:
            return None, None
        option, value = match
        if option == "-s":
            return f"{self.ip} saddr {value}", f"{self.ip} saddr != {value}"
        key = "iifname" if changes.INTERFACE_BY_NAME in self.release else "iif"
        if key == "iif" and value.endswith("+"):
            message = f"kube-proxy {self.options.version} in nftables mode loads no rule with an interface name prefix"
            raise InputError(f"{message} (Interface does not exist)", cure="take v1.33.6, v1.34.2 or later")
        name = f'"{value.removesuffix("+")}{"*" if value.endswith("+") else ""}"'
        return f"{key} {name}", f"{key} != {name}"

    def text(self) -> str:
        """Return the transaction."""
        return "\n".join([*self.lines, ""])

    def rule(self, chain: str, rule: str, comment: str | None = None) -> None:
        """Add a rule."""
        said = f' comment "{comment}"' if comment else ""
        self.lines.append(f"add rule {self.table} {chain} {rule}{said}")

    def chain(self, name: str) -> None:
        """Add a chain without rules."""
        self.chains[name] = None
        self.lines += [f"add chain {self.table} {name}", f"flush chain {self.table} {name}"]

    def container(self, kind: str, name: str, contents: str, comment: str, flags: str = "") -> None:
        """Add a set or a map without elements."""
        properties = f"type {contents} ;{flags and f' flags {flags} ;'}"
        self.lines.append(f"add {kind} {self.table} {name} {{ {properties}{self._comment(comment)} }}")
        self.lines.append(f"flush {kind} {self.table} {name}")

    def _comment(self, text: str) -> str:
        return f' comment "{text}" ;' if self.comments else ""

    def element(self, container: str, key: str, value: str = "", comment: str = "") -> None:
        """Add an element; what has its key already stays."""
        refuse_comment(comment, self.options)
        known = self.elements.setdefault(container, {})
        if key not in known:  # ports share a cluster IP, services share endpoints
            said = f' comment "{comment}"' if comment else ""
            known[key] = f"{key}{said}{value and f' : {value}'}"
            self.lines.append(f"add element {self.table} {container} {{ {known[key]} }}")

    def write_setup(self) -> None:
        """Write what is the same for all services."""
        table = self.table
        self.lines.append(f'add table {table} {{ comment "rules for kube-proxy" ; }}')
        self.write_base_chains(*_layout(after_dnat=changes.FILTERS_AFTER_DNAT in self.release))
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
            elif self._from_elsewhere:
                comment = "masquerade clusterIP traffic from outside cluster"
                match = f"{self.ip} daddr @cluster-ips {self._from_elsewhere}"
                self.rule("services", f"{match} {self.mark}", comment)
        self.rule("services", f"{self.ip} daddr . meta l4proto . th dport vmap @service-ips")
        local = "" if self._node_port_ips() is not None else "fib daddr type local "
        self.rule("services", f"{local}{self._node_ports_match()} meta l4proto . th dport vmap @service-nodeports")

    def write_base_chains(self, base_chains: Iterable[BaseChain], jumps: Sequence[Jump]) -> None:
        """Write the base chains and the chains that they jump to."""
        lines, table = self.lines, self.table
        base_chains = tuple(base_chains)
        for name, _, _, _ in base_chains:  # made anew, as a base chain's priority cannot be changed
            lines += [f"add chain {table} {name}", f"delete chain {table} {name}"]
        for name, kind, hook, priority in base_chains:
            lines.append(f"add chain {table} {name} {{ type {kind} hook {hook} priority {priority} ; }}")
            lines.append(f"flush chain {table} {name}")
        for name in dict.fromkeys(target for _, target, _ in jumps):
            self.chain(name)
        for source, target, condition in jumps:
            self.rule(source, f"{condition}jump {target}")

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
        self.lines.append(f"add chain {table} reject-chain {{{self._comment(comment)} }}")
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
        elif self._from_elsewhere:
            self.rule(names.internal, f"{match} {self._from_elsewhere} {self.mark}")

    def _external(self, port: ServicePort, names: Names) -> None:
        """Write the chain of what comes by node port, load balancer or external IP."""
        if not port.external_local:
            self.rule(names.external, self.mark, "masquerade" if changes.ENDPOINT_MAPS in self.release else None)
        else:
            if self._from_pods:
                self.rule(names.external, f"{self._from_pods} goto {names.cluster}", "short-circuit pod traffic")
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


class Names:
    """A port's chain names, and what they are used for."""

    def __init__(self, port: ServicePort) -> None:
        self._base = f"{port.service}/{port.protocol}/{port.port_name}"
        name = named(self._base)
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
            name = named(f"{self._base}__{target.address.replace(':', '.')}/{target.port}")
            self._endpoints[target.text] = name
        return name


def named(text: str) -> str:
    """Put its hash before a text, and cut it where it is too long for nft."""
    name = f"{hashed(text, 8)}-{text}"
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 3] + "..."


def _layout(*, after_dnat: bool) -> tuple[tuple[BaseChain, ...], tuple[Jump, ...]]:
    """Return base chains and jumps."""
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
