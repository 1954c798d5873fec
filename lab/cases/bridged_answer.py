# SPDX-License-Identifier: MIT
"""Pods on one bridge whose node's rules do not see what it passes on: the answer crosses it untranslated."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import NO_WAY, Case, always, on_every_kernel
from lab.cases.demands import masqueraded
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario, RefusedError
from lab.scenario.roles import Roles
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Family

_CALLS: Final = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


def _on_one_bridge(topology: Topology, family: Family, roles: Roles) -> str:
    """Demand client and endpoints on one bridge of the node, where they know each other by their own addresses."""
    pods = {roles.client, *(host for host, _address in roles.servers)}
    bridges = {
        pod: {
            other.bridge
            for end in topology.ends(pod)
            for other in topology.neighbours(end)
            if other.host == roles.node and other.bridge
        }
        for pod in pods
    }
    if roles.node in pods or not set.intersection(*bridges.values()):
        return f"it needs {roles.client} and every endpoint on one bridge of {roles.node}"
    if not masqueraded(topology, family, roles):
        return f"it needs {roles.client} not to be masqueraded: the answer would be for {roles.node} itself"
    return ""


def _call(scenario: ConnectionScenario, *, called: bool) -> None:
    """Set whether the nodes' rules see what their bridges pass on, and have the lab know it."""
    lab, before = scenario.lab, scenario.lab.topology
    for key in _CALLS:
        scenario.set_node_sysctl(key, int(called))
    hosts = (
        replace(host, bridge_nf_call_iptables=called) if host.proxy_mode and host.name in before.bridging else host
        for host in before.hosts
    )
    lab.topology = replace(before, hosts=tuple(hosts))  # by which the instruments know where packets are seen
    lab.undo(partial(setattr, lab, "topology", before))


async def _past(scenario: ConnectionScenario) -> None:
    _call(scenario, called=False)
    for host, _address in scenario.roles.servers:
        await scenario.barrier(host)  # the bridge has then learned where each is, and floods no copy to the client
    try:
        await scenario.establish()
    except RefusedError:
        client, own = scenario.roles.client, scenario.roles.client_address
        answers = scenario.seen(client, flags="SA", outgoing=False)
        pods = {address: host for host, address in scenario.roles.servers}
        answering = next((one.packet.source for one in answers), None)
        if scenario.expect("a SYN,ACK from the pod's own address", answering in pods, answering or "none"):
            assert answering is not None
            await scenario.expect_packet(pods[answering], source=own, flags="R", outgoing=False)
        judged = scenario.judgements(source=own, flags="S")
        scenario.expect("the node to call the SYN NEW", judged[:1] == [Judgement.NEW], judged)
        scenario.expect_entry(state="SYN_SENT")  # it has seen no answer
        raise
    await scenario.go_on()


async def _translated(scenario: ConnectionScenario) -> None:
    _call(scenario, called=True)
    await scenario.establish()
    await scenario.server_speaks()
    await scenario.go_on()


CASE: Final = Case(
    name="answer-across-bridge",
    title="two pods on one bridge of a node whose rules do not see what it passes on: bridge-nf-call-iptables is 0",
    story=(
        "What the client sends to the VIP is for its gateway, so the node routes and translates it. What the endpoint"
        " answers is for a neighbour: it crosses the bridge, and with bridge-nf-call-iptables at 0, or without"
        " br_netfilter, no rule and no conntrack sees it. The client gets a SYN,ACK from the pod's address, which it"
        " never asked, and answers it with a RST: nobody is connected, and the node's entry stays in SYN_SENT. Pods of"
        " other nodes reach the Service all the same. No drop and no sysctl of conntrack's helps."
    ),
    threads=(
        "kubernetes/kubernetes#122174",
        "kubernetes/kubernetes#38802",
        "net/bridge/br_netfilter_hooks.c, br_nf_pre_routing",
    ),
    scenario=ConnectionScenario,
    steps=_past,
    expectations=on_every_kernel(lambda _protection: NO_WAY),
    topology="bridge",
    demands=(_on_one_bridge,),
    both_ways=False,
    needs=("br_netfilter",),
    about_answers=False,
)

CONTROL: Final = replace(
    CASE,
    name="answer-across-bridge-called",
    title="control: the same with bridge-nf-call-iptables at 1",
    story=(
        "The bridge hands the answer to the node's hooks on its way across, conntrack knows it by its entry, and it is"
        " translated back. kube-proxy asks for this sysctl and only warns where it is not so."
    ),
    steps=_translated,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED)),
    both_ways=True,
    about_answers=True,
)

CASES: Final = (CASE, CONTROL)
