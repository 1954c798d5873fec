# SPDX-License-Identifier: MIT
"""An endpoint is gone, its entry is not: a client that keeps its port talks into the void."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import cleans_by_vip, living_proxy, second_endpoint
from lab.evidence.judgement import Judgement
from lab.kubeproxy import changes
from lab.kubeproxy.changes import Change
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario, LastDatagramScenario
from lab.scenario.roles import roles_in
from lab.topology.kube_proxy import node_release
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#105657",
    "kubernetes/kubernetes#91236",
    "pkg/proxy/conntrack/cleanup.go",
)
#: Questions to the VIP are tracked and find their way, but not the answers from pod to pod.
_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LEAKED)


def _first(change: Change) -> str:
    """Name the first releases with a change, and the change."""
    return f"{', '.join(change.releases)} ({change.name})"


async def _endpoint_goes(scenario: DatagramsScenario, *, cleaned: bool) -> None:
    scenario.ask("who is there?")
    await scenario.settle()
    first, service = scenario.answered_by, scenario.roles.service.partition(":")[0]
    scenario.lab.endpoints.remove(service, first.address, clean_conntrack=cleaned)
    scenario.end_server(first)
    if cleaned:
        scenario.expect_no_entry()
    else:
        scenario.expect_entry()
    scenario.ask("who is there now?")
    await scenario.settle()
    scenario.expect_counter("drop", 0)
    scenario.expect_counter("insert_failed", 0)
    scenario.expect_counter("invalid", 0)


async def _restarted(scenario: DatagramsScenario) -> None:
    scenario.ask("who is there?")
    await scenario.settle()
    first = scenario.answered_by
    scenario.lab.restart_kube_proxies()
    goes_on = changes.ENTRIES_RECONCILED in node_release(scenario.node.host)
    if goes_on:
        scenario.expect_entry()
    else:
        scenario.expect_no_entry()
    scenario.ask("who is there now?")
    await scenario.settle()
    if goes_on:
        scenario.expect("the same endpoint to answer", scenario.answered_by == first, scenario.answered_by)
    scenario.ask("and are you still there?")
    await scenario.settle()
    scenario.expect_counter("drop", 0)
    scenario.expect_counter("insert_failed", 0)
    scenario.expect_counter("invalid", 0)


async def _kept(scenario: DatagramsScenario) -> None:
    await _endpoint_goes(scenario, cleaned=False)


async def _cleaned(scenario: DatagramsScenario) -> None:
    await _endpoint_goes(scenario, cleaned=True)


KEPT: Final = Case(
    name="stale-udp-entry",
    title="an endpoint is gone, its conntrack entry is left, and a client asks again from the same port",
    story=(
        "A UDP flow has no end that conntrack could see, so the entry that leads to the old endpoint lives for as long"
        " as the client goes on asking, and no rule is looked at. The questions go to an address that nobody has, and"
        " nothing comes back. Whoever changes the endpoints has to delete the entries as well: a fix against INVALID"
        " packets does nothing, for none is."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_kept,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.LOST, untracked=_UNTRACKED)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    demands=(living_proxy, second_endpoint),
)

CLEANED: Final = Case(
    name="stale-udp-entry-cleaned",
    title="control: the same, and kube-proxy deletes the entries that lead to the endpoint that is gone",
    story=(
        "kube-proxy deletes the stale entries of UDP services when their endpoints change. So the next question is NEW"
        " again, the rules are asked, and the endpoint that is left answers. The client has noticed nothing. When it"
        " does so differs by release (docs/releases.md): up to v1.19 not by the VIP of a Service with a node port; from"
        " v1.29.0 to v1.31.1 not where the endpoint stopped serving before it was gone; from v1.32 on not where it was"
        " the last."
    ),
    threads=_THREADS,
    scenario=DatagramsScenario,
    steps=_cleaned,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    demands=(living_proxy, second_endpoint, cleans_by_vip),
)

RESTARTED: Final = Case(
    name="kube-proxy-restarted",
    title="kube-proxy is started anew, and a client that keeps its port goes on asking",
    story=(
        f"The first sync of a kube-proxy before {_first(changes.ENTRIES_RECONCILED)} finds endpoints of every Service"
        " for the first time, and deletes entries of UDP services, also of flows that were well: those by the cluster"
        " IP, as here, by external IPs and node ports, and by a load balancer's address from"
        f" {_first(changes.ENTRIES_OF_BALANCER)} on. The second question is NEW then, the rules choose anew, and"
        " another endpoint may answer: nobody minds that of a DNS query, but a QUIC connection ends with it. From"
        f" {_first(changes.ENTRIES_RECONCILED)} on entries are laid beside the"
        " endpoints, so the flow keeps its entry, and the same endpoint answers. The third question, which decides, has"
        " an entry either way."
    ),
    threads=(
        "kubernetes/kubernetes#122740",
        "kubernetes/kubernetes#127318",
        "pkg/proxy/conntrack/cleanup.go",
    ),
    scenario=LastDatagramScenario,
    steps=_restarted,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=_UNTRACKED)),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    endpoint_on_node=True,
    demands=(living_proxy,),
)

CASES: Final = (KEPT, CLEANED, RESTARTED)
