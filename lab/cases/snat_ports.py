# SPDX-License-Identifier: MIT
"""Source NAT has a port to give for each connection: which are free, and what becomes of one that finds none."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import egress, way_out
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.scenario import ScriptedScenario
from lab.scenario.roles import CLIENT_PORT
from lab.verdict import Outcome

_PORTS: Final = range(40000, 40004)  # that the node may give to what goes to one port of one server
_FIRST: Final = 2_000_000  # the first connection's initial number: a later one's is behind it, or further on
_BEHIND: Final = 1_000_000
_FURTHER: Final = 4_000_000

#: As a network plugin writes it (iptables: MASQUERADE --to-ports), and the same without bounds for all the rest.
_MASQUERADE: Final = """
table inet plugin {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "OUTSIDE" tcp dport 80 masquerade TO
        oifname "OUTSIDE" masquerade
    }
}
"""

#: What leaves the cluster is tracked on any node, also where what stays in it is not.
_DELIVERED: Final = on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=None))
_LOST: Final = on_every_kernel(always(Judgement.NEW, Outcome.LOST, untracked=None))


def _masquerade(scenario: ScriptedScenario, ports: range | None) -> None:
    to = f"to :{ports[0]}-{ports[-1]}" if ports else ""
    outside = way_out(scenario.lab.topology, scenario.roles)
    scenario.load(scenario.roles.node, _MASQUERADE.replace("OUTSIDE", outside).replace("TO", to))


def _sources(scenario: ScriptedScenario) -> list[int]:
    """Return from which ports the server has got SYNs, in their order."""
    syns = scenario.seen(scenario.roles.servers[0][0], flags="S", outgoing=False)
    return [one.packet.source.port for one in syns]


async def _finish(scenario: ScriptedScenario) -> None:
    """Bring a handshake to its end, whose SYN has come."""
    scenario.server.syn_ack()
    scenario.client.ack()
    await scenario.expect_judgements(Judgement.ACCEPTED, Judgement.ACCEPTED)
    scenario.expect_entry(state="ESTABLISHED", assured=True)


# --- the range ---------------------------------------------------------------------------------------


async def _fill(scenario: ScriptedScenario, ports: range) -> None:
    """Have as many connections as there are ports in use, and ask for one more, to be judged."""
    _masquerade(scenario, ports)
    for port in range(CLIENT_PORT, CLIENT_PORT + len(_PORTS)):
        scenario.begin(port)
        await scenario.handshake()
    scenario.begin(CLIENT_PORT + len(_PORTS))
    scenario.judge(await scenario.ask())
    await scenario.expect_judgements(Judgement.NEW)


async def _used_up(scenario: ScriptedScenario) -> None:
    await _fill(scenario, _PORTS)
    scenario.expect("each port given once", sorted(_sources(scenario)) == list(_PORTS), _sources(scenario))
    scenario.expect_counter("insert_failed", 1)
    scenario.expect_counter("drop", 1)
    scenario.expect_no_entry()
    host, address = scenario.roles.servers[0]
    scenario.begin(CLIENT_PORT + len(_PORTS) + 1)
    scenario.client.to = SocketAddress(address.address, address.port + 1)
    scenario.client.syn()
    await scenario.expect_judgements(Judgement.NEW)
    await scenario.expect_packet(host, destination=scenario.client.to, flags="S", outgoing=False)


async def _one_more(scenario: ScriptedScenario) -> None:
    ports = range(_PORTS[0], _PORTS[-1] + 2)
    await _fill(scenario, ports)
    scenario.expect("each port given once", sorted(_sources(scenario)) == list(ports), _sources(scenario))
    scenario.expect_counter("insert_failed", 0)
    await _finish(scenario)


# --- a port whose connection is over -----------------------------------------------------------------


async def _close(scenario: ScriptedScenario) -> None:
    """Have the server close first: then it is the one that keeps the port in TIME_WAIT."""
    scenario.server.fin()
    scenario.client.fin()
    scenario.server.ack()
    await scenario.expect_judgements(*[Judgement.ACCEPTED] * 3)
    scenario.expect_entry(state="TIME_WAIT", timeout=range(110, 121))


async def _reset(scenario: ScriptedScenario) -> None:
    scenario.client.rst()
    await scenario.expect_judgements(Judgement.ACCEPTED)
    scenario.expect_entry(state="CLOSE", timeout=range(11))


async def _taken(scenario: ScriptedScenario, end: Callable[[ScriptedScenario], Awaitable[None]]) -> None:
    _masquerade(scenario, _PORTS[:1])
    scenario.client.begin(_FIRST)
    await scenario.handshake()
    await end(scenario)
    entry = scenario.entry()
    scenario.begin(CLIENT_PORT + 1)
    scenario.client.begin(_BEHIND)
    scenario.judge(await scenario.ask())
    await scenario.expect_judgements(Judgement.NEW)
    scenario.expect_counter("insert_failed", 1)
    scenario.expect_counter("drop", 1)
    scenario.begin(CLIENT_PORT + 2)
    scenario.client.begin(_FURTHER)
    await scenario.ask()
    await scenario.expect_judgements(Judgement.NEW)
    taken = len(_sources(scenario)) > 1
    words = "takes the port" if taken else "is dropped as well"
    scenario.find(f"where the entry is in {entry.tcp_state if entry else 'no state'}, a SYN that is further on {words}")
    if taken:
        await _finish(scenario)
    scenario.expect_counter("insert_failed", 1 if taken else 2)


async def _again(scenario: ScriptedScenario) -> None:
    _masquerade(scenario, None)
    await scenario.handshake()
    await _close(scenario)
    scenario.client.begin(_FURTHER)
    scenario.server.begin(_FURTHER)
    scenario.judge(await scenario.ask())
    await scenario.expect_judgements(Judgement.NEW)
    sources = _sources(scenario)
    scenario.expect("both SYNs from the client's own port", sources == [CLIENT_PORT, CLIENT_PORT], sources)
    await _finish(scenario)


_USED_UP: Final = Case(
    name="snat-ports-used-up",
    title="four connections to one server have the four ports that the node may masquerade with, and a fifth begins",
    story=(
        "The node may give each port to one connection to the same server and port. Where all are given, NAT takes one"
        " all the same, the entry's answer would be the same as another's, and conntrack drops the SYN behind all rules"
        " and counts insert_failed. The client sends it again until it gives up. To another port of the server there is"
        " room, for the destination is a part of what has to be different."
    ),
    threads=(
        "cilium/cilium#23604",
        "kubernetes/kubernetes#56903",
        "net/netfilter/nf_nat_core.c (nf_nat_l4proto_unique_tuple)",
        "net/netfilter/nf_conntrack_core.c (nf_ct_resolve_clash)",
    ),
    scenario=ScriptedScenario,
    steps=_used_up,
    expectations=_LOST,
    choose_roles=partial(egress, port=80),
    topology="uplink",
    about_answers=False,
)

_ONE_MORE: Final = dataclasses.replace(
    _USED_UP,
    name="snat-ports-left",
    title="control: the same five connections, and the node has five ports",
    story=(
        "NAT looks for a port from a random one on, and tries each of a small range, so it finds the one that is free."
        " The fifth connection comes about. So it was the number of ports and nothing else."
    ),
    steps=_one_more,
    expectations=_DELIVERED,
)

_TIME_WAIT: Final = dataclasses.replace(
    _USED_UP,
    name="snat-port-in-time-wait",
    title="the one port that the node may masquerade with has an entry in TIME_WAIT, and another connection begins",
    story=(
        "The connection is over, but its entry holds the port for two minutes. Up to Linux 6.4 every SYN is dropped"
        " until then, with insert_failed. From 6.5 on NAT gives the old entry up for a SYN whose number is further on"
        " than all that the old connection sent, so that the server can tell the two apart; one whose number is behind"
        " is dropped as before. Initial numbers of different connections are random to each other, so about half of"
        " the SYNs are lost, each time until the client begins anew."
    ),
    threads=("torvalds/linux 4589725502871e77", "net/netfilter/nf_nat_core.c (nf_nat_used_tuple_harder)"),
    steps=partial(_taken, end=_close),
)

_CLOSE: Final = dataclasses.replace(
    _TIME_WAIT,
    name="snat-port-in-close",
    title="the same, and the first connection was reset",
    story=(
        "CLOSE holds the port for 10 s where TIME_WAIT holds it for 120. All else is the same: up to Linux 6.4 no SYN"
        " gets the port before, and from 6.5 on one that is further on does."
    ),
    steps=partial(_taken, end=_reset),
)

_AGAIN: Final = dataclasses.replace(
    _USED_UP,
    name="snat-port-again",
    title="control: the client uses its own port again, and the node masquerades it without bounds",
    story=(
        "A SYN of the same flow ends the old entry before NAT looks for a port, so nothing stands in its way and it"
        " gets the port that it had. The server, which closed first, has that port in TIME_WAIT itself and takes the"
        " SYN where its number is further on."
    ),
    threads=("RFC 9293, 3.6.1", "net/netfilter/nf_conntrack_proto_tcp.c, the state SYN_SENT"),
    steps=_again,
    expectations=_DELIVERED,
)

CASES: Final = (_USED_UP, _ONE_MORE, _TIME_WAIT, _CLOSE, _AGAIN)
