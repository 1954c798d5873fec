# SPDX-License-Identifier: MIT
"""A UDP Service is scaled to zero, or deleted, while a client goes on sending to it from one port."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import Case, Elsewhere, always, on_every_kernel
from lab.cases.demands import cleans_by_vip, living_proxy, reconciles_entries, second_endpoint, way_to_service
from lab.evidence.judgement import Judgement
from lab.kubeproxy import changes
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario
from lab.scenario.roles import roles_in
from lab.verdict import Outcome

#: Questions to the VIP are tracked and find their way, but not the answers from pod to pod.
_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LEAKED)
_RECONCILED: Final = f"from v1.{changes.ENTRIES_RECONCILED.minor} on"


async def _asked_again(scenario: DatagramsScenario, *, forgotten: bool) -> None:
    """Ask once more, when the Service has changed and its entry is what this kube-proxy leaves of it.

    :param forgotten: somebody deletes what is left.
    """
    if reconciles_entries(scenario.lab.topology, scenario.roles):
        scenario.expect_entry()
        if forgotten:
            scenario.forget_entry()
    if forgotten or not reconciles_entries(scenario.lab.topology, scenario.roles):
        scenario.expect_no_entry()
    scenario.ask("who is there now?")
    await scenario.settle()
    scenario.expect_counter("drop", 0)
    scenario.expect_counter("insert_failed", 0)
    scenario.expect_counter("invalid", 0)


async def _scaled(scenario: DatagramsScenario, *, forgotten: bool) -> None:
    scenario.ask("who is there?")
    await scenario.settle()
    lab, service = scenario.lab, scenario.roles.service.partition(":")[0]
    emptied = (
        piece.model_copy(update={"endpoints": ()}) if piece.service_key == service else piece
        for piece in lab.endpoint_slices
    )
    lab.sync(lab.services, tuple(emptied))
    scenario.end_server(scenario.answered_by)
    await _asked_again(scenario, forgotten=forgotten)


async def _deleted(scenario: DatagramsScenario, *, forgotten: bool) -> None:
    scenario.ask("who is there?")
    await scenario.settle()
    scenario.lab.served.remove(scenario.roles.service.partition(":")[0])
    await _asked_again(scenario, forgotten=forgotten)


_REFUSED: Final = on_every_kernel(always(Judgement.NEW, Outcome.REFUSED, untracked=_UNTRACKED))
_LOST: Final = on_every_kernel(always(Judgement.NEW, Outcome.LOST, untracked=_UNTRACKED))

SCALED: Final = Case(
    name="udp-scaled-to-zero",
    title="a UDP Service is scaled to zero, and a client asks again from the same port",
    story=(
        "Up to v1.31 kube-proxy deletes the entries that lead to an endpoint that is gone (v1.29.0 to v1.31.1 only of"
        " one that served to the last), whether another is left or not: the next question is NEW, finds no endpoint,"
        " and is refused at once. From v1.32 on it lays entries"
        " beside the endpoints of each Service and skips one that has none, so the entry stays and leads to the pod"
        " that is gone; the rule that refuses is for the VIP, and the question has been translated before it comes"
        " there. A client that never pauses for longer than the entry lives sends into the void until the Service has"
        " an endpoint again; upstream cured that in 2026, after v1.36.3 (#139629)."
    ),
    threads=(
        "kubernetes/kubernetes#139628",
        "kubernetes/kubernetes#139629",
        "kubernetes/kubernetes#127318",
        "pkg/proxy/conntrack/cleanup.go, CleanStaleEntries",
    ),
    scenario=DatagramsScenario,
    steps=partial(_scaled, forgotten=False),
    expectations=_REFUSED,
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    demands=(living_proxy, second_endpoint, cleans_by_vip),
    elsewhere=(
        Elsewhere(
            _RECONCILED,
            reconciles_entries,
            on_every_kernel(always(Judgement.ACCEPTED, Outcome.LOST, untracked=_UNTRACKED)),
        ),
    ),
)

_SCALED_FORGOTTEN: Final = replace(
    SCALED,
    name="udp-scaled-to-zero-forgotten",
    title="control: the same, and somebody deletes the entry that was left",
    story=(
        "`conntrack -D` does what kube-proxy did up to v1.31, and does again with #139629. The next question is NEW,"
        " the rule for a Service without endpoints sees the VIP, and the client is told at once. It was the entry that"
        " kept it in the dark, and no rule."
    ),
    steps=partial(_scaled, forgotten=True),
    elsewhere=(),
)

DELETED: Final = Case(
    name="udp-service-deleted",
    title="a UDP Service is deleted, its pods live on, and a client asks again from the same port",
    story=(
        "Up to v1.31 kube-proxy deletes the entries by the cluster IP of a Service that is gone: the next question is"
        " NEW, nobody translates it, and it leaves by the default route, or is dropped where nftables mode knows the"
        " cluster's ServiceCIDRs (v1.33). From v1.32 on it deletes none, so whoever keeps its port goes on talking to"
        " the pod by a Service that no longer is, and to whichever pod gets that address next. Upstream cured that in"
        " 2026, after v1.36.3 (#141371)."
    ),
    threads=(
        "kubernetes/kubernetes#141371",
        "kubernetes/kubernetes#127318",
        "pkg/proxy/conntrack/cleanup.go, CleanStaleEntries",
    ),
    scenario=DatagramsScenario,
    steps=partial(_deleted, forgotten=False),
    expectations=_LOST,
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    endpoint_on_node=True,
    demands=(living_proxy, way_to_service),
    elsewhere=(
        Elsewhere(
            _RECONCILED,
            reconciles_entries,
            on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=_UNTRACKED)),
        ),
    ),
)

_DELETED_FORGOTTEN: Final = replace(
    DELETED,
    name="udp-service-deleted-forgotten",
    title="control: the same, and somebody deletes the entry that was left",
    story=(
        "With the entry goes the last that knew of the Service. The next question is NEW and finds no rule for the VIP,"
        " so no pod gets it. That is what deleting a Service is taken to mean."
    ),
    steps=partial(_deleted, forgotten=True),
    expectations=_LOST,
    elsewhere=(),
)

CASES: Final = (SCALED, _SCALED_FORGOTTEN, DELETED, _DELETED_FORGOTTEN)
