# SPDX-License-Identifier: MIT
"""Traffic policy Local: the node's only pod is replaced, or is on its way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

from lab.cases.case import NO_WAY, Case, Elsewhere, always, on_every_kernel
from lab.cases.demands import living_proxy, outsider, reconciles_entries, second_endpoint, way_to_service
from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.kubeproxy import changes, iptables
from lab.kubeproxy.services import service_ports
from lab.kubernetes.objects import EndpointConditions, EndpointSlice, Service, ServiceStatus
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario, DatagramsScenario, LastDatagramScenario
from lab.scenario.roles import Roles, roles_in
from lab.topology.kube_proxy import node_release, proxy_options
from lab.topology.model import Topology
from lab.topology.ways import way
from lab.verdict import Outcome
from lab.vocabulary import Family, ProxyMode

_Scenario: TypeAlias = DatagramsScenario | ConnectionScenario
_Objects: TypeAlias = tuple[tuple[Service, ...], tuple[EndpointSlice, ...]]

#: Of a load balancer that leaves its own address in what it passes on; RFC 5737 and RFC 3849 keep them for examples.
_BALANCERS: Final = {
    Family.IPV4: ("192.0.2.53", "198.51.100.53", "203.0.113.53"),
    Family.IPV6: ("2001:db8:1b::53", "2001:db8:2b::53"),
}
_ELSEWHERE: Final = "another-node"
_READY: Final = EndpointConditions(ready=True, serving=True, terminating=False)
_TERMINATING: Final = EndpointConditions(ready=False, serving=True, terminating=True)
_GAP: Final = f"in iptables mode, v1.{changes.INTERNAL_POLICY.minor} to v1.{changes.ENTRIES_RECONCILED.minor - 1}"
_CURED: Final = f"from v1.{changes.ENTRIES_RECONCILED.minor} on, and in nftables mode"


def _balancer(topology: Topology, family: Family) -> str:
    """Return an address that is in none of the topology's subnets: in one, a neighbour would be looked for.

    :raises InputError: there is none.
    """
    subnets = [own.network for link in topology.links for end in link.ends for own in end.addresses]
    for address in map(ip_address, _BALANCERS[family]):
        if not any(address in subnet for subnet in subnets):
            return str(address)
    raise InputError("it needs an address for a load balancer, and all for examples are in the topology's own subnets")


def _by_balancer(topology: Topology, family: Family, service: str | None = None, *, protocol: str) -> Roles:
    """Have somebody outside ask by the load balancer's address."""
    roles = roles_in(topology, family, service, client=outsider(topology, family), protocol=protocol)
    assert roles.service_address is not None
    return replace(roles, service_address=SocketAddress(_balancer(topology, family), roles.service_address.port))


def _leads_to_node(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a client that sends what is for the load balancer's address to the node."""
    assert roles.service_address is not None
    passed = way(topology, roles.client, roles.service_address.address)
    return "" if roles.node in passed else f"it needs {roles.client} to have a default route by {roles.node}"


def _own_rules(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a node of which the lab writes the rules: only then there is a moment between two of their tables."""
    return f"it needs rules of the lab's own on {roles.node}" if topology.host(roles.node).program else ""


def _served(scenario: _Scenario, spec: Mapping[str, Any], here: EndpointConditions | None) -> _Objects:
    """Return what there is where the first endpoint is on the node, and the others are on another one, and ready.

    :param spec: what the Service's has besides.
    :param here: the state of the one on the node; None where there is none.
    """
    roles, lab = scenario.roles, scenario.lab
    key, pod = roles.service.partition(":")[0], roles.servers[0][1].address
    balancer = _balancer(lab.topology, scenario.family)

    def changed(service: Service) -> Service:
        ingress = [{"ip": balancer}] if spec.get("type") == "LoadBalancer" else []
        status = ServiceStatus.model_validate({"loadBalancer": {"ingress": ingress}})
        return service.model_copy(update={"spec": service.spec.model_copy(update=spec), "status": status})

    def placed(piece: EndpointSlice) -> EndpointSlice:
        endpoints = [
            endpoint.model_copy(update={"node_name": roles.node if own else _ELSEWHERE, "conditions": state})
            for endpoint in piece.endpoints
            for own in (pod in endpoint.addresses,)
            for state in (here if own else _READY,)
            if state is not None
        ]
        return piece.model_copy(update={"endpoints": tuple(endpoints)})

    services = tuple(changed(one) if one.key == key else one for one in lab.topology.services)
    return services, tuple(placed(one) if one.service_key == key else one for one in lab.topology.endpoint_slices)


def _load_filter_table(scenario: DatagramsScenario, before: _Objects, after: _Objects) -> None:
    """Load the half of a change that iptables-restore commits first; in nftables mode a change has no halves."""
    node = scenario.node
    if node.host.proxy_mode is ProxyMode.NFTABLES:
        return
    options = proxy_options(scenario.lab.topology, node.host, scenario.family, scenario.lab.changes[0])
    text = iptables.sync(service_ports(*before, options), service_ports(*after, options), options)
    node.xtables.start_restore(scenario.family.version, text[: text.index("*nat\n")]).finish()


def _refuses(topology: Topology, roles: Roles) -> bool:
    """Check whether no entry is left: nftables mode replaces all its rules at once, and never lets go on in between."""
    return topology.host(roles.node).proxy_mode is ProxyMode.NFTABLES


def _is_cured(topology: Topology, roles: Roles) -> bool:
    return _refuses(topology, roles) or reconciles_entries(topology, roles)


def _heeds_internal(topology: Topology, roles: Roles) -> bool:
    return changes.INTERNAL_POLICY in node_release(topology.host(roles.node))


async def _replaced(scenario: DatagramsScenario, spec: Mapping[str, Any], *, forgotten: bool = False) -> None:
    """Ask while the node's new pod is being taken into its rules, and again when it is.

    :param forgotten: somebody deletes the entry of the first question.
    """
    topology, roles = scenario.lab.topology, scenario.roles
    before, after = _served(scenario, spec, None), _served(scenario, spec, _READY)
    scenario.lab.sync(*before)
    _load_filter_table(scenario, before, after)
    scenario.ask("is anybody here?")
    await scenario.settle()
    if _refuses(topology, roles):
        scenario.expect_no_entry()
    else:
        scenario.expect_entry()
    scenario.lab.sync(*after)
    if forgotten and not _is_cured(topology, roles):
        scenario.forget_entry()
    by_internal = "internal_traffic_policy" in spec
    if forgotten or _is_cured(topology, roles):
        scenario.expect_no_entry()
    elif not by_internal or _heeds_internal(topology, roles):
        entry = scenario.entry()
        kept = entry is not None and entry.reply[0] == roles.service_address
        scenario.expect("an entry that translates nothing", kept, entry or "none")
    scenario.ask("is there anybody now?")
    await scenario.settle()


async def _asked(scenario: ConnectionScenario, state: EndpointConditions) -> None:
    """Connect to the node's only endpoint in a state, while others are ready elsewhere."""
    scenario.lab.sync(*_served(scenario, _EXTERNAL, state))
    await scenario.establish()
    await scenario.server_speaks()
    here = scenario.server_end.own_address
    scenario.expect("the node's own endpoint", here == scenario.roles.servers[0][1], here)
    await scenario.go_on()


_EXTERNAL: Final[Mapping[str, Any]] = {"type": "LoadBalancer", "external_traffic_policy": "Local"}
_INTERNAL: Final[Mapping[str, Any]] = {"internal_traffic_policy": "Local"}
#: Somebody outside is no pod: what is kept out of conntrack from pod to pod is another matter.
_SERVED: Final = on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=None))
_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LEAKED)
_STUCK: Final = on_every_kernel(always(Judgement.NEW, Outcome.LOST, untracked=None))
_CONNECTED: Final = on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=None))
_THREADS: Final = (
    "kubernetes/kubernetes#113250",
    "kubernetes/kubernetes#126934",
    "kubernetes/kubernetes#126130",
    "pkg/proxy/conntrack/cleanup.go",
)

REPLACED: Final = Case(
    name="local-pod-replaced",
    title="externalTrafficPolicy Local: the balancer's datagrams come to a node before its rules know its new pod",
    story=(
        "The node has no endpoint of the Service yet, another node has one. Up to v1.24 a question that is forwarded"
        " then leaves untranslated, for the drop is made in INPUT alone; from v1.25 on this happens between the filter"
        " table, in which iptables-restore takes the drop away, and the nat table behind it. Its entry translates"
        " nothing, and up to v1.31 kube-proxy deletes no entries where the Service had an endpoint somewhere: who"
        " keeps its port never comes to the new pod. From v1.32 on whatever leads to no endpoint is deleted, and"
        " nftables mode changes all its rules at once."
    ),
    threads=_THREADS,
    scenario=LastDatagramScenario,
    steps=partial(_replaced, spec=_EXTERNAL),
    expectations=_STUCK,
    choose_roles=partial(_by_balancer, protocol="udp"),
    topology="dns",
    demands=(living_proxy, _own_rules, second_endpoint, _leads_to_node, way_to_service),
    elsewhere=(Elsewhere(_CURED, _is_cured, _SERVED),),
)

_FORGOTTEN: Final = replace(
    REPLACED,
    name="local-pod-replaced-forgotten",
    title="control: the same, and somebody deletes the entry of the first question",
    story=(
        "Without the entry the next question is NEW, and the rules, which know the pod by now, send it there. From"
        " v1.32 on kube-proxy does that itself. Before, it was the one thing that helped, or a pause."
    ),
    steps=partial(_replaced, spec=_EXTERNAL, forgotten=True),
    expectations=_SERVED,
    elsewhere=(),
)

INTERNAL: Final = replace(
    REPLACED,
    name="local-pod-replaced-internal",
    title="internalTrafficPolicy Local: a pod asks the VIP while the only pod of its node is being replaced",
    story=(
        "As with the load balancer's address, and more common: a node's only statsd or DNS pod is replaced, and the"
        " clients on the node never stop. Up to v1.21 the policy is not heeded, so the pod of the other node answers"
        " and goes on answering. Then a question between the two tables leaves an entry that translates nothing, which"
        " v1.22 to v1.31 do not delete."
    ),
    steps=partial(_replaced, spec=_INTERNAL),
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=_UNTRACKED)),
    choose_roles=partial(roles_in, protocol="udp"),
    demands=(living_proxy, _own_rules, second_endpoint, way_to_service),
    elsewhere=(
        Elsewhere(
            _CURED,
            _is_cured,
            on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED)),
        ),
        Elsewhere(_GAP, _heeds_internal, _STUCK),
    ),
)

TERMINATING: Final = Case(
    name="local-pod-terminating",
    title="externalTrafficPolicy Local: a client connects while the node's only pod is on its way out",
    story=(
        "The load balancer goes on sending to the node until its health check has failed for long enough, and the pod"
        " would serve for as long as its grace period lasts. Up to v1.25 an endpoint that terminates is none: the SYN"
        " is dropped, or leaves untranslated, though the pod is there. From v1.26 on (KEP-1669) it is used where none"
        " on the node is ready, and the connection comes about."
    ),
    threads=(
        "kubernetes/kubernetes#85643",
        "kubernetes/kubernetes#97238",
        "keps/sig-network/1669-proxy-terminating-endpoints",
    ),
    scenario=ConnectionScenario,
    steps=partial(_asked, state=_TERMINATING),
    expectations=on_every_kernel(lambda _protection: NO_WAY),
    choose_roles=partial(_by_balancer, protocol="tcp"),
    topology="dns",
    demands=(living_proxy, second_endpoint, _leads_to_node, way_to_service),
    elsewhere=(
        Elsewhere(
            f"from v1.{changes.TERMINATING.minor} on",
            lambda topology, roles: changes.TERMINATING in node_release(topology.host(roles.node)),
            _CONNECTED,
        ),
    ),
)

_STILL_READY: Final = replace(
    TERMINATING,
    name="local-pod-ready",
    title="control: the same while the pod is ready",
    story=(
        "The same rules, the same client and the same pod, which nobody has asked to end. The connection comes about"
        " with every release. It was the pod's state that kept the other from coming about, and no policy."
    ),
    steps=partial(_asked, state=_READY),
    expectations=_CONNECTED,
    elsewhere=(),
)

CASES: Final = (REPLACED, _FORGOTTEN, INTERNAL, TERMINATING, _STILL_READY)
