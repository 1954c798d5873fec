# SPDX-License-Identifier: MIT
"""A hairpin: a pod asks its own Service, and is the endpoint that gets the question."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import Case, Elsewhere, always, on_every_kernel
from lab.cases.demands import living_proxy, second_endpoint
from lab.evidence.judgement import Judgement
from lab.kubeproxy import changes
from lab.kubernetes.objects import Endpoint
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario
from lab.scenario.roles import Roles, roles_in
from lab.topology.kube_proxy import node_release
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Family, ProxyMode

#: A source that is translated to itself is translated: no masquerade behind it is asked any more.
_SPARED: Final = """table ip{version} lab_plugin {{
chain postrouting {{
type nat hook postrouting priority srcnat - 1; policy accept;
ip{version} saddr {pod} ip{version} daddr {pod} snat to {pod}
}}
}}
"""


def _own_service(topology: Topology, family: Family, service: str | None = None) -> Roles:
    """Have the first endpoint ask; the others come first among the servers, for the lab's own datagrams go there."""
    first = roles_in(topology, family, service, protocol="udp").servers[0]
    roles = roles_in(topology, family, service, client=first[0], protocol="udp")
    others = tuple(one for one in roles.servers if one != first)
    address = replace(roles.client_address, address=first[1].address)
    return replace(roles, client_address=address, servers=(*others, first))


def _way_back(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a link that lets a packet go back where it came from: a bridge's port does in hairpin mode alone."""
    on_bridge = any(
        other.host == roles.node and other.bridge
        for end in topology.ends(roles.client)
        for other in topology.neighbours(end)
    )
    lacking = on_bridge and not topology.host(roles.node).hairpin
    return f"it needs the bridge of {roles.node} in hairpin mode (hairpin: true)" if lacking else ""


def _by_name(topology: Topology, roles: Roles) -> bool:
    """Check whether the node masquerades a hairpin only where the EndpointSlice says that the pod is its own."""
    node = topology.host(roles.node)
    return node.proxy_mode is ProxyMode.NFTABLES and changes.ENDPOINT_MAPS in node_release(node)


async def _steps(scenario: DatagramsScenario, *, named: bool = True, spared: bool = False) -> None:
    """Ask the Service of which the client is the only endpoint.

    :param named: the EndpointSlice has the node's name.
    :param spared: a rule on the node spares what a pod sends to itself from being masqueraded.
    """
    lab, roles = scenario.lab, scenario.roles
    pod, service = roles.servers[-1][1], roles.service.partition(":")[0]

    def alone(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        name = {"node_name": roles.node if named else None}
        return tuple(one.model_copy(update=name) for one in endpoints if pod.address in one.addresses)

    slices = (
        piece.model_copy(update={"endpoints": alone(piece.endpoints)}) if piece.service_key == service else piece
        for piece in lab.endpoint_slices
    )
    lab.sync(lab.services, tuple(slices))
    if spared:
        version = "6" if scenario.family is Family.IPV6 else ""
        scenario.load(roles.node, _SPARED.format(version=version, pod=pod.address))
    scenario.ask("am I there?")
    await scenario.settle()
    came = [one.packet.source.address for one in scenario.seen(roles.client, destination=pod, outgoing=False)]
    own = spared or (not named and _by_name(lab.topology, roles))
    words = "the question back from the pod's own address" if own else "the question from the node"
    scenario.expect(words, len(came) == 1 and (came == [pod.address]) is own, came)


_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LOST)
_DELIVERED: Final = on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED))
_LOST: Final = on_every_kernel(always(Judgement.NEW, Outcome.LOST, untracked=_UNTRACKED))
_THREADS: Final = (
    "kubernetes/kubernetes#45790",
    "cloudnativelabs/kube-router#637",
    "kubernetes/kubernetes#20475",
    "net/ipv4/fib_frontend.c, __fib_validate_source",
)

CASE: Final = Case(
    name="hairpin",
    title="a pod asks its own Service by the VIP, and is the endpoint itself",
    story=(
        "The node sends the question back to the pod that asked. From the pod's own address it could not be answered"
        " through the node, so kube-proxy masquerades what comes back to where it came from: the pod sees its node for"
        " a client, answers it, and the answer comes from the VIP. Where pods are on a bridge, its ports need their"
        " hairpin mode besides."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_steps,
    expectations=_DELIVERED,
    choose_roles=_own_service,
    topology="dns",
    demands=(living_proxy, second_endpoint, _way_back),
    both_ways=False,
)

_UNNAMED: Final = replace(
    CASE,
    name="hairpin-node-unnamed",
    title="the same, and the EndpointSlice does not say on which node the pod is",
    story=(
        "In iptables mode each endpoint has its rule, and up to v1.35 nftables mode has one as well. From v1.36 on the"
        " latter has a set of hairpins instead, with those endpoints alone whose nodeName is its own. An EndpointSlice"
        " that somebody else wrote may have none, and then the pod does not reach itself."
    ),
    threads=(*_THREADS, "kubernetes/kubernetes#135800"),
    steps=partial(_steps, named=False),
    elsewhere=(Elsewhere(f"in nftables mode from v1.{changes.ENDPOINT_MAPS.minor} on", _by_name, _LOST),),
)

_UNMASQUERADED: Final = replace(
    CASE,
    name="hairpin-unmasqueraded",
    title="the same, and a rule of somebody else's spares what pods send to pods from being masqueraded",
    story=(
        "Network plugins masquerade what leaves the cluster, and spare what stays inside; put before kube-proxy's, such"
        " a rule spares the hairpin too. The question comes back to the pod from its own address. In IPv4 its kernel"
        " drops it for that, in IPv6 it answers itself, past the node, from an address that it has not asked: either"
        " way there is no answer."
    ),
    steps=partial(_steps, spared=True),
    expectations=_LOST,
)

CASES: Final = (CASE, _UNNAMED, _UNMASQUERADED)
