"""iptables mode of kube-proxy v1.14 and v1.15, whose chains were others.

Local policy has KUBE-XLB instead of KUBE-SVL and KUBE-EXT, every load balancer has a KUBE-FW, and what is
refused is marked for the kubelet's KUBE-FIREWALL. Rules of endpoints have no comments, by a mistake of that
time (``appendServiceCommentLocked`` appended to a copy). Source: ``pkg/proxy/iptables/proxier.go`` of v1.15,
and ``pkg/kubelet/kubelet_network_linux.go`` for KUBE-MARK-DROP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.kubeproxy.options import MASQUERADE_MARK, ProxyOptions
from lab.kubeproxy.services import ServicePort, Target, hashed
from lab.kubeproxy.tables import NODE_PORTS_COMMENT, IptablesRules, Tables, balance, chain, delete, jumps_text
from lab.words import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARK = f"{MASQUERADE_MARK}/{MASQUERADE_MARK}"
_DROP_MARK = "0x00008000/0x00008000"  # the kubelet's, bit 15
_NEW = "-m conntrack --ctstate NEW "
_PORTALS = '-m comment --comment "kubernetes service portals"'
_EXTERNAL = _NEW + '-m comment --comment "kubernetes externally-visible service portals"'
_JUMPS = (
    ("filter", "KUBE-EXTERNAL-SERVICES", "INPUT", _EXTERNAL),
    ("filter", "KUBE-SERVICES", "FORWARD", _NEW + _PORTALS),
    ("filter", "KUBE-SERVICES", "OUTPUT", _NEW + _PORTALS),
    ("filter", "KUBE-SERVICES", "INPUT", _NEW + _PORTALS),
    ("filter", "KUBE-FORWARD", "FORWARD", '-m comment --comment "kubernetes forwarding rules"'),
    ("nat", "KUBE-SERVICES", "OUTPUT", _PORTALS),
    ("nat", "KUBE-SERVICES", "PREROUTING", _PORTALS),
    ("nat", "KUBE-POSTROUTING", "POSTROUTING", '-m comment --comment "kubernetes postrouting rules"'),
)
_KUBELET_JUMPS = (("filter", "KUBE-FIREWALL", "OUTPUT", ""), ("filter", "KUBE-FIREWALL", "INPUT", ""))


def render(ports: Sequence[ServicePort], options: ProxyOptions) -> IptablesRules:
    """Write all rules; with a KUBE-MARK-DROP among them, the kubelet's two chains as well."""
    tables = _write(ports, options)
    drops = chain("KUBE-MARK-DROP") in tables.nat_chains
    return IptablesRules(tables.text(), jumps_text((*_JUMPS, *(_KUBELET_JUMPS if drops else ()))))


def sync(before: Sequence[ServicePort], after: Sequence[ServicePort], options: ProxyOptions) -> str:
    """Write all rules anew, and the end of the chains that are left over."""
    tables = _write(after, options)
    kept = {*tables.nat_chains, chain("KUBE-MARK-DROP")}  # the kubelet's stays
    delete(tables, [line for line in _write(before, options).nat_chains if line not in kept])
    return tables.text()


def _write(ports: Sequence[ServicePort], options: ProxyOptions) -> Tables:
    tables = Tables(
        filter_chains=[chain(f"KUBE-{name}") for name in ("SERVICES", "EXTERNAL-SERVICES", "FORWARD")],
        nat_chains=[chain(f"KUBE-{name}") for name in ("SERVICES", "NODEPORTS", "POSTROUTING", "MARK-MASQ")],
        nat_rules=[
            (
                '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
                f" -m mark --mark {_MARK} -j MASQUERADE"
            ),
            f"-A KUBE-MARK-MASQ -j MARK --set-xmark {_MARK}",
        ],
    )
    for port in ports:
        _service(port, tables, options)
    _tail(tables, options)
    if any(rule.endswith(" -j KUBE-MARK-DROP") for rule in tables.nat_rules):
        tables.filter_chains.append(chain("KUBE-FIREWALL"))
        tables.filter_rules.append(
            '-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets"'
            f" -m mark --mark {_DROP_MARK} -j DROP"
        )
        tables.nat_chains.append(chain("KUBE-MARK-DROP"))
        tables.nat_rules.append(f"-A KUBE-MARK-DROP -j MARK --set-xmark {_DROP_MARK}")
    return tables


def _service(port: ServicePort, tables: Tables, options: ProxyOptions) -> None:
    code = hashed(port.name + port.protocol, 16)
    service, local, firewall = f"KUBE-SVC-{code}", f"KUBE-XLB-{code}", f"KUBE-FW-{code}"
    only_local = port.external_local and bool(port.node_port or port.load_balancer_ips)
    targets = port.endpoints.cluster
    host = "/32" if options.family is Family.IPV4 else "/128"
    nat_rules, name = tables.nat_rules, port.name
    match = f"-m {port.protocol} -p {port.protocol}"
    if targets:
        tables.nat_chains.append(chain(service))
    if only_local:
        tables.nat_chains.append(chain(local))
    if not targets:
        _refuse(port, tables, match, host)
        return
    cluster_ip = (
        f'-A KUBE-SERVICES -m comment --comment "{name} cluster IP" {match}'
        f" -d {port.cluster_ip}{host} --dport {port.port}"
    )
    if options.masquerade_all:
        nat_rules.append(f"{cluster_ip} -j KUBE-MARK-MASQ")
    elif options.cluster_cidr:
        nat_rules.append(f"{cluster_ip} ! -s {options.cluster_cidr} -j KUBE-MARK-MASQ")
    nat_rules.append(f"{cluster_ip} -j {service}")
    for ip in port.external_ips:
        external = (
            f'-A KUBE-SERVICES -m comment --comment "{name} external IP" {match} -d {ip}{host} --dport {port.port}'
        )
        nat_rules += [
            f"{external} -j KUBE-MARK-MASQ",
            # What comes neither over a bridge, from a container, nor from the node itself.
            f"{external} -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j {service}",
            f"{external} -m addrtype --dst-type LOCAL -j {service}",
        ]
    if port.load_balancer_ips:
        tables.nat_chains.append(chain(firewall))
    for ip in port.load_balancer_ips:
        nat_rules.append(
            f'-A KUBE-SERVICES -m comment --comment "{name} loadbalancer IP" {match} -d {ip}{host}'
            f" --dport {port.port} -j {firewall}"
        )
        start = f'-A {firewall} -m comment --comment "{name} loadbalancer IP"'
        chosen = local if only_local else service
        if not only_local:
            nat_rules.append(f"{start} -j KUBE-MARK-MASQ")
        sources = [f" -s {cidr}" for cidr in port.source_ranges] or [""]
        if options.inside(port.source_ranges):
            sources.append(f" -s {ip}{host}")
        nat_rules += [f"{start}{source} -j {chosen}" for source in sources]
        nat_rules.append(f"{start} -j KUBE-MARK-DROP")
    if port.node_port:
        start = f"-A KUBE-NODEPORTS -m comment --comment {name} {match} --dport {port.node_port}"
        if only_local:
            nat_rules += [f"{start} -s {options.loopback} -j KUBE-MARK-MASQ", f"{start} -j {local}"]
        else:
            nat_rules += [f"{start} -j KUBE-MARK-MASQ", f"{start} -j {service}"]
    _endpoints(port, service, targets, tables, host)
    if only_local:
        _local(port, local, service, tables, options)


def _refuse(port: ServicePort, tables: Tables, match: str, host: str) -> None:
    comment = f'-m comment --comment "{port.name} has no endpoints"'
    catches = [("KUBE-SERVICES", f"{match} -d {port.cluster_ip}{host} --dport {port.port}")]
    catches += [("KUBE-EXTERNAL-SERVICES", f"{match} -d {ip}{host} --dport {port.port}") for ip in port.external_ips]
    catches += [("KUBE-SERVICES", f"{match} -d {ip}{host} --dport {port.port}") for ip in port.load_balancer_ips]
    if port.node_port:
        node_port = f"-m addrtype --dst-type LOCAL {match} --dport {port.node_port}"
        catches.append(("KUBE-EXTERNAL-SERVICES", node_port))
    tables.filter_rules += [f"-A {name} {comment} {catch} -j REJECT" for name, catch in catches]


def _endpoint_chain(port: ServicePort, target: Target) -> str:
    return "KUBE-SEP-" + hashed(f"{port.name}{port.protocol}{target.text}", 16)


def _endpoints(port: ServicePort, service: str, targets: tuple[Target, ...], tables: Tables, host: str) -> None:
    names = [_endpoint_chain(port, target) for target in targets]
    tables.nat_chains += [chain(name) for name in names]
    if port.affinity_seconds:
        recent = f"--rcheck --seconds {port.affinity_seconds} --reap"
        tables.nat_rules += [f"-A {service} -m recent --name {name} {recent} -j {name}" for name in names]
    for name, match, target in zip(names, balance(targets, 5), targets, strict=True):
        recent = f" -m recent --name {name} --set" if port.affinity_seconds else ""
        tables.nat_rules += [
            f"-A {service}{match} -j {name}",
            f"-A {name} -s {target.address}{host} -j KUBE-MARK-MASQ",
            f"-A {name}{recent} -m {port.protocol} -p {port.protocol} -j DNAT --to-destination {target.text}",
        ]


def _local(port: ServicePort, local: str, service: str, tables: Tables, options: ProxyOptions) -> None:
    """Write the chain of a service with externalTrafficPolicy Local."""
    start, name = f"-A {local} -m comment --comment", port.name
    from_node = "-m addrtype --src-type LOCAL"
    rules = [
        f'{start} "masquerade LOCAL traffic for {name} LB IP" {from_node} -j KUBE-MARK-MASQ',
        f'{start} "route LOCAL traffic for {name} LB IP to service chain" {from_node} -j {service}',
    ]
    if options.cluster_cidr:
        rules.append(
            f'{start} "Redirect pods trying to reach external loadbalancer VIP to clusterIP"'
            f" -s {options.cluster_cidr} -j {service}"
        )
    # The service chain has the ready endpoints alone, and so has this one.
    targets = tuple(target for target in port.endpoints.cluster if target.local)
    names = [_endpoint_chain(port, target) for target in targets]
    if not names:
        rules.append(f'{start} "{name} has no local endpoints" -j KUBE-MARK-DROP')
    elif port.affinity_seconds:
        recent = f"--rcheck --seconds {port.affinity_seconds} --reap"
        rules += [f"{start} {name} -m recent --name {endpoint} {recent} -j {endpoint}" for endpoint in names]
    rules += [
        f'{start} "Balancing rule {index} for {name}"{match} -j {endpoint}'
        for index, (match, endpoint) in enumerate(zip(balance(targets, 5), names, strict=False))
    ]
    tables.nat_rules += rules


def _tail(tables: Tables, options: ProxyOptions) -> None:
    start = f"-A KUBE-SERVICES -m comment --comment {NODE_PORTS_COMMENT}"
    if options.node_port_ips is None:
        tables.nat_rules.append(f"{start} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    else:
        tables.nat_rules += [f"{start} -d {ip} -j KUBE-NODEPORTS" for ip in options.node_port_ips]
    if options.drops_invalid:
        tables.filter_rules.append("-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP")
    tables.filter_rules.append(
        f'-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark {_MARK} -j ACCEPT'
    )
    if options.cluster_cidr:
        established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        comment = '-m comment --comment "kubernetes forwarding conntrack pod'
        tables.filter_rules += [
            f'-A KUBE-FORWARD -s {options.cluster_cidr} {comment} source rule" {established}',
            f'-A KUBE-FORWARD {comment} destination rule" -d {options.cluster_cidr} {established}',
        ]
