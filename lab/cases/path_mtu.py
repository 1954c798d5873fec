# SPDX-License-Identifier: MIT
"""A smaller link behind the node, and the router's word of it: translated, or eaten by a filter on the node."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, always, on_every_kernel
from lab.cases.demands import one_endpoint, router_before_server
from lab.cases.icmp_error import quoted_by
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario
from lab.scenario.roles import Roles
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Family

_USUAL: Final = 1500  # bytes, of every other link
_SMALL: Final = 1300  # bytes; above the least that IPv6 takes (RFC 8200, 5: 1280)
#: One segment that every link carries but the small one, with all headers and options of either family.
_WORDS: Final = b"m" * 1400

#: As policies write it that let established connections through, and no ICMP.
_FILTER: Final = """table inet lab_policy {
chain forward {
type filter hook forward priority filter; policy accept;
icmp type destination-unreachable icmp code frag-needed drop
icmpv6 type packet-too-big drop
}
}
"""


def _narrow_last_link(scenario: ConnectionScenario) -> str:
    """Give the router's link to the server a small MTU; return the router."""
    topology = scenario.lab.topology
    host, address = scenario.roles.servers[0]
    end = next(end for end in topology.ends(host) if address.address in {str(own.ip) for own in end.addresses})
    router = next(one for one in topology.neighbours(end) if topology.host(one.host).forwarding)
    scenario.lab.is_altered = True  # the client's kernel remembers a path's MTU for minutes
    narrow = partial(scenario.lab.hosts[router.host].run, "ip", "link", "set", router.interface, "mtu")
    scenario.lab.undo(partial(narrow, str(_USUAL)))
    narrow(str(_SMALL))
    return router.host


def _of_usual_size(topology: Topology, _family: Family, _roles: Roles) -> str:
    """Demand links that all take what the client sends, but for the one that the case makes small."""
    other = next((end for link in topology.links for end in link.ends if end.mtu not in (None, _USUAL)), None)
    return (
        f"it needs links with an MTU of {_USUAL}, and {other.host}'s {other.interface} has {other.mtu}" if other else ""
    )


def _errors_sent(scenario: ConnectionScenario, host: str) -> int:
    """Return how many errors a host has sent about what goes to the server."""
    return sum(
        one.packet.icmp is not None and one.packet.icmp.quoted is not None and one.outgoing
        for one in scenario.seen(host)
    )


async def _filtered(scenario: ConnectionScenario) -> None:
    router = _narrow_last_link(scenario)
    scenario.load(scenario.roles.node, _FILTER)
    await scenario.establish()
    await scenario.client_speaks(_WORDS)
    await scenario.retransmissions(1)
    told = _errors_sent(scenario, router)
    scenario.expect("the router to tell of each segment", told >= 2, told)
    heard = [one for one in scenario.seen(scenario.roles.client, outgoing=False) if one.packet.icmp]
    scenario.expect("nothing of it at the client", not heard, len(heard))
    mtu = scenario.path_mtu()
    scenario.expect(f"the client's path MTU still {_USUAL}", mtu == _USUAL, mtu)
    words = f"sent again as large as before: the client's path MTU is {mtu}, and a link's {_SMALL}"
    scenario.stand_still(words, f"{router} has told of it {told} times")


async def _told(scenario: ConnectionScenario) -> None:
    _narrow_last_link(scenario)
    await scenario.establish()
    await scenario.client_speaks(_WORDS, judged=False)
    vip = scenario.roles.service_address
    assert vip is not None
    about = quoted_by(scenario, vip.address)
    scenario.expect("an ICMP error from the VIP, about what was sent to the VIP", about == [str(vip)], about)
    mtu = scenario.path_mtu()
    scenario.expect(f"the client's path MTU {_SMALL}", mtu == _SMALL, mtu)
    scenario.expect_counter("related", 1)
    await scenario.client_speaks()
    await scenario.go_on()


FILTERED: Final = Case(
    name="path-mtu-filtered",
    title="a link behind the node is too small for what the client sends, and a filter on the node eats the word of it",
    story=(
        "The router drops the segment and says so (RFC 1191, RFC 8201), and conntrack has the error RELATED to the"
        " connection; but a rule on the node that lets established connections through, and no ICMP, drops it. The"
        " client never learns of the smaller link and sends the same again and again: small requests pass, large ones"
        " never do. No fix against INVALID packets is about that; net.ipv4.tcp_mtu_probing at the client is, or a rule"
        " that accepts what is RELATED."
    ),
    threads=(
        "cloudnativelabs/kube-router#685",
        "cilium/cilium#47755",
        "RFC 2923, 2.1",
    ),
    scenario=ConnectionScenario,
    steps=_filtered,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.STALLED)),
    topology="congested",
    demands=(router_before_server, one_endpoint, _of_usual_size),
)

_TOLD: Final = replace(
    FILTERED,
    name="path-mtu-told",
    title="control: the same small link, and nobody eats the word of it",
    story=(
        "The node translates the router's error as it does answers: it comes from the VIP, and what it quotes went to"
        " the VIP. The client's kernel finds its connection, takes 1,300 bytes for the path's MTU and sends the same in"
        " smaller segments at once. Nobody notices anything."
    ),
    steps=_told,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)

CASES: Final = (FILTERED, _TOLD)
