"""An endpoint is gone, its entry is not: a client that keeps its port talks into the void."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import second_endpoint
from lab.cast import cast
from lab.conntrack.witness import Judgement
from lab.result import Expectation
from lab.stage.datagrams import Datagrams, decide
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#105657",
    "kubernetes/kubernetes#91236",
    "pkg/proxy/conntrack/cleanup.go",
)
#: Questions to the VIP are tracked and find their way, but not the answers from pod to pod.
_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LEAKED)


async def _endpoint_goes(stage: Datagrams, *, cleaned: bool) -> None:
    stage.ask("who is there?")
    await stage.settle()
    first, service = stage.answered_by, stage.cast.service.partition(":")[0]
    stage.lab.endpoints.remove(service, first.address, clean_conntrack=cleaned)
    stage.end_server(first)
    if cleaned:
        stage.expect_no_entry()
    else:
        stage.expect_entry()
    stage.ask("who is there now?")
    await stage.settle()
    stage.expect_counter("drop", 0)
    stage.expect_counter("insert_failed", 0)
    stage.expect_counter("invalid", 0)


async def _kept(stage: Datagrams) -> None:
    await _endpoint_goes(stage, cleaned=False)


async def _cleaned(stage: Datagrams) -> None:
    await _endpoint_goes(stage, cleaned=True)


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
    play=_kept,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.LOST, untracked=_UNTRACKED)),
    stage=Datagrams,
    decide=decide,
    cast=partial(cast, protocol="udp"),
    topology="dns",
    demands=(second_endpoint,),
)

CLEANED: Final = Case(
    name="stale-udp-entry-cleaned",
    title="control: the same, and kube-proxy deletes the entries that lead to the endpoint that is gone",
    story=(
        "kube-proxy deletes the stale entries of UDP services when their endpoints change. So the next question is NEW"
        " again, the rules are asked, and the endpoint that is left answers. The client has noticed nothing."
    ),
    threads=_THREADS,
    play=_cleaned,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED)),
    stage=Datagrams,
    decide=decide,
    cast=partial(cast, protocol="udp"),
    topology="dns",
    demands=(second_endpoint,),
)

CASES: Final = (KEPT, CLEANED)
