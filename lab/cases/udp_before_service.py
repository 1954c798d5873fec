"""A datagram comes before its service: the entry without translation stands in the way of all that follow."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import beyond, way_to_service
from lab.cast import cast
from lab.conntrack.witness import Judgement
from lab.result import Expectation
from lab.stage.datagrams import Datagrams, decide_by_the_last
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#48370",
    "kubernetes/kubernetes#105657",
    "pkg/proxy/conntrack/cleanup.go",
)
#: NEW is what conntrack calls every packet of a flow that nobody has answered, also where it has an entry.
_LOST: Final = Expectation(Judgement.NEW, Outcome.LOST)


async def _service_comes(stage: Datagrams, *, cleaned: bool) -> None:
    services, slices = stage.lab.services, stage.lab.endpoint_slices
    stage.lab.sync((), ())
    stage.ask("is anybody there?")
    await stage.settle()
    await stage.expect_packet(
        beyond(stage.lab.topology, stage.cast), destination=stage.cast.service_address, outgoing=False
    )
    stage.lab.sync(services, slices, clean_conntrack=cleaned)
    if cleaned:
        stage.expect_no_entry()
    else:
        stage.expect_entry()
    stage.ask("is there anybody now?")
    await stage.settle()


async def _kept(stage: Datagrams) -> None:
    await _service_comes(stage, cleaned=False)


async def _cleaned(stage: Datagrams) -> None:
    await _service_comes(stage, cleaned=True)


KEPT: Final = Case(
    name="udp-before-service",
    title="a client asks before the service is there, and goes on asking from the same port when it is",
    story=(
        "The first question finds no rule for the VIP, so it leaves by the default route, and conntrack remembers a"
        " flow that needs no translation. A flow's translation is chosen once, by its first packet: its state is still"
        " NEW, for nobody has answered, but the rules that come later are never asked. The client talks past the"
        " service for as long as it keeps its port and does not pause for longer than the entry lives."
    ),
    threads=_THREADS,
    play=_kept,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.LOST, untracked=_LOST)),
    stage=Datagrams,
    decide=decide_by_the_last,
    cast=partial(cast, protocol="udp"),
    topology="dns",
    demands=(way_to_service,),
)

CLEANED: Final = Case(
    name="udp-before-service-cleaned",
    title="control: the same, and kube-proxy deletes the entries when the service gets its first endpoint",
    story=(
        "kube-proxy deletes what conntrack remembers of a UDP service that gets its first endpoint. The next question"
        " is NEW, and finds the service. That is all it takes, and for TCP nobody does it."
    ),
    threads=_THREADS,
    play=_cleaned,
    expectations=on_every_kernel(
        always(Judgement.NEW, Outcome.DELIVERED, untracked=Expectation(Judgement.NEW, Outcome.LEAKED))
    ),
    stage=Datagrams,
    decide=decide_by_the_last,
    cast=partial(cast, protocol="udp"),
    topology="dns",
    demands=(way_to_service,),
)

CASES: Final = (KEPT, CLEANED)
