# SPDX-License-Identifier: MIT
"""Packets that the node takes in and drops for their source: rp_filter, and an address that is the node's own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, NO_WAY, Case, on_every_kernel
from lab.cases.demands import alone, interface_towards, masqueraded
from lab.evidence.judgement import Judgement
from lab.evidence.packet import Packet
from lab.scenario import ConnectionScenario, RefusedError
from lab.scenario.roles import Roles
from lab.topology.model import Topology
from lab.topology.routes import next_hop
from lab.vocabulary import Family

_FILTER: Final = "net/ipv4/conf/{}/rp_filter"
_STRICT, _LOOSE = 1, 2  # ip-sysctl.rst, rp_filter; RFC 3704, 2.2 and 2.4


def _by_other_link(topology: Topology, roles: Roles) -> str | None:
    """Return an address of the client's that its node answers by another link than the client sends by."""
    own = ip_address(roles.client_address.address)
    came_by = interface_towards(topology, roles)
    for other in topology.addresses(roles.client, Family.of(own)) if came_by else ():
        hop = next_hop(topology, roles.node, other) if other != own else None
        if hop is not None and hop.to is not None and hop.to.host == roles.client:
            answered_by = hop.end.bridge or hop.end.interface
            if answered_by != came_by:
                return str(other)
    return None


def _two_links(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a client with an address behind another link of its node than that by which it sends."""
    if _by_other_link(topology, roles) is None:
        return f"it needs {roles.client} with two links to {roles.node}, and an address on each"
    return ""


def _not_masqueraded(topology: Topology, family: Family, roles: Roles) -> str:
    """Demand a client whose address the server gets to know: an answer to the node's own is another matter."""
    hidden = not masqueraded(topology, family, roles)
    return (
        f"it needs {roles.client} not to be masqueraded: the answer would be for {roles.node} itself" if hidden else ""
    )


def _of_ipv4(_topology: Topology, family: Family, _roles: Roles) -> str:
    """Demand IPv4: no kernel validates a source of IPv6, but for rules that say so (xt_rpfilter, nft's fib)."""
    return "" if family is Family.IPV4 else "it needs IPv4: in IPv6 the kernel validates no source"


def _source(scenario: ConnectionScenario) -> str:
    source = _by_other_link(scenario.lab.topology, scenario.roles)
    assert source is not None  # the demands see to it
    return source


def _filter(scenario: ConnectionScenario, mode: int) -> str:
    """Have the node validate strictly by conf/all, and as said at the client's link alone; return the interface."""
    interface = interface_towards(scenario.lab.topology, scenario.roles)
    scenario.set_node_sysctl(_FILTER.format("all"), _STRICT)
    key = _FILTER.format(interface.replace(".", "/"))
    scenario.set_node_sysctl(key, mode, followed_alone=True)
    return interface


async def _refused(scenario: ConnectionScenario, source: str, why: str) -> None:
    """Connect from an address, and expect the SYN to end at the node for the reason that its kernel gives."""
    client, node = scenario.roles.client, scenario.roles.node
    try:
        await scenario.establish(source=source)
    except RefusedError:
        sent = scenario.seen(client, source=source, flags="S", outgoing=True)
        where = await _lost_where(scenario, sent[0].packet) if sent else "seen nowhere"
        wanted = f"came to {node} and no further, {Judgement.NEW} there: {why}"
        scenario.expect(f"the SYN {wanted}", where == wanted, where)
        scenario.expect_no_entry()  # it is confirmed behind the last rule, and the SYN did not come so far
        raise
    await scenario.go_on()


async def _lost_where(scenario: ConnectionScenario, packet: Packet) -> str:
    """Return where a packet was seen last, and not on its way there: its sender may have sent it again just now."""
    await scenario.recorder.all_arrived()
    return scenario.lost_where(packet)


async def _strict(scenario: ConnectionScenario) -> None:
    source, interface = _source(scenario), _filter(scenario, 0)
    await _refused(scenario, source, f"rp_filter: {source} is not to come in by {interface}")


async def _loose(scenario: ConnectionScenario) -> None:
    source, interface = _source(scenario), _filter(scenario, _LOOSE)
    await scenario.establish(source=source)
    node = scenario.roles.node
    came = {one.interface for one in scenario.seen(node, source=source, outgoing=False)}
    left = {one.interface for one in scenario.seen(node, destination=source, outgoing=True)}
    scenario.expect(f"all of it in by {interface}", came == {interface}, came)
    scenario.expect("the answers out by another", len(left) == 1 and not came & left, left)
    await scenario.server_speaks()
    await scenario.go_on()


async def _conflict(scenario: ConnectionScenario) -> None:
    source = _source(scenario)
    scenario.give_node(source)
    await _refused(scenario, source, f"martian: {source} is an address of its own")


async def _accepted(scenario: ConnectionScenario) -> None:
    source, roles = _source(scenario), scenario.roles
    scenario.give_node(source)
    if scenario.family is Family.IPV4:
        scenario.set_node_sysctl("net/ipv4/conf/all/accept_local", 1)
    try:
        await scenario.establish(source=source)
    except RefusedError:
        server = next((host for host, _address in roles.servers if scenario.seen(host, source=source, flags="S")), None)
        if scenario.expect("the SYN at a server", server is not None, "none") and server is not None:
            answer = scenario.seen(server, flags="SA", outgoing=True)[0].packet
            where = await _lost_where(scenario, answer)
            wanted = f"came to the sockets of {roles.node} itself"
            scenario.expect(f"the SYN,ACK {wanted}", where.startswith(wanted), where)
        raise
    await scenario.go_on()


CASE: Final = Case(
    name="source-filtered",
    title="a client with two links asks from the address of one by the other, and the node has rp_filter=1",
    story=(
        "The node takes the SYN in, translates it, and then looks up the way back to its source: that is by the other"
        " link, so strict reverse path filtering drops it, without an answer and behind no rule. Counted is it by"
        " nstat alone (TcpExtIPReversePathFilter), and logged where log_martians is 1. The larger of conf/all and"
        " conf/IF holds, so a 0 at the interface changes nothing. No fix against INVALID packets is about it: conntrack"
        " calls the SYN NEW, and forgets it. So it is as well with a node port whose pod answers by a policy rule."
    ),
    threads=(
        "lyft/cni-ipvlan-vpc-k8s#38",
        "aws/amazon-vpc-cni-k8s#75",
        "cilium/cilium#13130",
        "kubernetes/kubernetes#124587",
        "Documentation/networking/ip-sysctl.rst, rp_filter",
        "net/ipv4/fib_frontend.c, __fib_validate_source",
    ),
    scenario=ConnectionScenario,
    steps=_strict,
    expectations=on_every_kernel(lambda _protection: NO_WAY),
    topology="two-links",
    demands=(_of_ipv4, _two_links, alone),
    about_answers=False,
)

_LOOSELY: Final = replace(
    CASE,
    name="source-filtered-loosely",
    title="control: the same with rp_filter=2 at the link that it comes in by",
    story=(
        "Loosely the source only has to have a way back by any link (RFC 3704, 2.4). The larger setting holds, and 2 is"
        " larger than the 1 of conf/all: 2 at the interface loosens what 0 there does not. The answers leave by the"
        " other link, the client's socket takes them by whichever they come, and conntrack has seen both directions."
    ),
    steps=_loose,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    demands=(*CASE.demands, _not_masqueraded),
    about_answers=True,
)

CONFLICT: Final = replace(
    CASE,
    name="source-conflicts",
    title="a client asks from an address that its node has as well",
    story=(
        "A node that was given a pod's address, as by a tool that configures all that the cloud has for a machine,"
        " takes each packet of that pod for a forged one of its own: a martian source, dropped behind prerouting"
        " whatever rp_filter is, and by no rule. No namespace counts it; the kernel says it to whoever asks for the"
        " route (ip route get ... from ... iif ...: Invalid argument), and to its log where log_martians is 1. What the"
        " pod sends from another address passes as ever."
    ),
    threads=(
        "aws/amazon-vpc-cni-k8s#709",
        "aws/amazon-vpc-cni-k8s#204",
        "net/ipv4/fib_frontend.c, fib_validate_source",
        "net/ipv4/route.c, ip_handle_martian_source",
    ),
    steps=_conflict,
)

_ACCEPTED: Final = replace(
    CONFLICT,
    name="source-conflicts-accepted",
    title="the same where the node believes it: accept_local=1, or IPv6, which asks for none",
    story=(
        "The SYN comes to the server, and the server's answer to the node, which has the address that it is for: it"
        " ends there, in a stack that knows no such connection, and the client hears nothing. The sysctl that lets the"
        " packet in helps nobody: the address has to go from one of the two."
    ),
    threads=(*CONFLICT.threads, "Documentation/networking/ip-sysctl.rst, accept_local"),
    steps=_accepted,
    demands=(_two_links, alone, _not_masqueraded),
)

CASES: Final = (CASE, _LOOSELY, CONFLICT, _ACCEPTED)
