# SPDX-License-Identifier: MIT
"""Asymmetric routes: the node sees one side of a connection alone, and the drop makes a time-out of what worked."""

from __future__ import annotations

from typing import Final

from lab.cases.case import Case, Row, on_every_kernel
from lab.cases.demands import answers_alone, requests_alone
from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.fixes import Protection
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario, HalfOpenError
from lab.scenario.roles import CLIENT_PORT, Roles, judge, roles_in
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Family


async def _steps(scenario: ConnectionScenario) -> None:
    try:
        await scenario.establish(by_service=False)
    finally:
        judged = scenario.judgements(source=scenario.roles.servers[0][1], flags="SA")
        no_beginning = set(judged) in ({Judgement.INVALID}, {Judgement.UNTRACKED})
        scenario.expect("no word of conntrack on the SYN,ACK but INVALID or UNTRACKED", no_beginning, judged)
    await scenario.server_speaks()
    await scenario.go_on()


async def _steps_clients_half(scenario: ConnectionScenario) -> None:
    try:
        await scenario.establish(by_service=False)
    except HalfOpenError:
        # Linux 5.10 does not say which packet and state.
        scenario.expect_reason("packet (index 3) in dir 0 invalid, state SYN_SENT", "invalid state")
        scenario.expect_entry(state="SYN_SENT")
        raise
    await scenario.client_speaks()
    await scenario.go_on()


def _other_way_round(topology: Topology, family: Family, service: str | None = None) -> Roles:
    """The first server's host asks the first client's: what it sends is what the node sees."""
    roles = roles_in(topology, family, service)
    host, address = roles.servers[0]
    client = SocketAddress(address.address, CLIENT_PORT)
    server = (roles.client, SocketAddress(roles.client_address.address, address.port))
    if host == roles.client:
        raise InputError(f"{topology.name}: {host} would ask itself", cure="give the Service an endpoint elsewhere")
    node = judge(topology, host, client, server)
    return Roles(host, node, client, (server,), None, service=roles.service)


def _expected(otherwise: Expectation, dropped: Expectation) -> Row:
    def expected(protection: Protection) -> Expectation:
        if protection.is_untracked:
            return Expectation(Judgement.UNTRACKED, Outcome.DELIVERED)
        return dropped if protection.drops_forwarded else otherwise

    return expected


CASE: Final = Case(
    name="asymmetric-route",
    about_answers=False,
    title="the client's packets take another way, so that the node sees the server's answers alone",
    story=(
        "A SYN,ACK begins no connection that conntrack knows, so it is INVALID, be_liberal or not: that is about the"
        " window of an entry, and there is none. Without the drop it passes, and the data behind is picked up as NEW;"
        " with the drop every handshake times out. What helps is to have no such rule, which kube-proxy from v1.29 on"
        " leaves out where be_liberal was set before, or to keep these packets out of conntrack."
    ),
    threads=("kubernetes/kubernetes#94861", "projectcalico/felix#1248"),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(
        _expected(Expectation(Judgement.NEW, Outcome.DELIVERED), Expectation(None, Outcome.REFUSED))
    ),
    topology="asymmetric",
    demands=(answers_alone,),
    both_ways=False,
)

CLIENTS_HALF: Final = Case(
    name="asymmetric-route-clients-half",
    about_answers=False,
    title="the server's answers take another way, so that the node sees the client's packets alone",
    story=(
        "The node has seen the SYN and never an answer, so its entry stays in SYN_SENT, where the client's ACK is"
        " INVALID by the table of states and not by the window: be_liberal changes nothing. Without the drop nobody"
        " notices. With it the handshake stays half open: the client is connected and sends, the server waits for the"
        " ACK, and neither is told of anything."
    ),
    threads=("projectcalico/calico#7434", "net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks"),
    scenario=ConnectionScenario,
    steps=_steps_clients_half,
    expectations=on_every_kernel(
        _expected(Expectation(Judgement.INVALID, Outcome.DELIVERED), Expectation(Judgement.INVALID, Outcome.STALLED))
    ),
    choose_roles=_other_way_round,
    topology="asymmetric",
    demands=(requests_alone,),
    both_ways=False,
)

CASES: Final = (CASE, CLIENTS_HALF)
