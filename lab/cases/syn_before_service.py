"""A SYN comes before its service: whoever tries again from the same port is led past the service."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import beyond, way_to_service
from lab.conntrack.witness import Judgement
from lab.stage import RefusedError, Stage
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#48719",
    "kubernetes/kubernetes#101607",
    "kubernetes/kubernetes#102669",
)


async def _service_comes(stage: Stage) -> None:
    services, slices = stage.lab.services, stage.lab.endpoint_slices
    stage.lab.sync((), ())
    with suppress(RefusedError):
        await stage.establish()
    stage.expect_entry(state="SYN_SENT", assured=False, timeout=range(100, 121))
    beyond_node = beyond(stage.lab.topology, stage.cast)
    await stage.expect_packet(beyond_node, destination=stage.cast.service_address, flags="S", outgoing=False)
    stage.lab.sync(services, slices)


async def _kept(stage: Stage) -> None:
    await _service_comes(stage)
    stage.expect_entry(state="SYN_SENT", assured=False)
    await stage.establish()


async def _forgotten(stage: Stage) -> None:
    await _service_comes(stage)
    if stage.entry() is not None:  # a node that drops the SYN remembers nothing, and the checks have said so
        stage.forget_entry()
    await stage.establish()
    await stage.server_speaks()
    await stage.go_on()


KEPT: Final = Case(
    name="syn-before-service",
    title="a client connects before the service is there, and tries again from the same port when it is",
    story=(
        "The first SYN finds no rule for the VIP and leaves by the default route; its entry waits two minutes for an"
        " answer. Every further SYN from that port belongs to this entry, so it goes the same way without translation,"
        " though the service is there by now. kube-proxy deletes such entries of UDP and not of TCP, whose clients"
        " mostly take another port."
    ),
    threads=_THREADS,
    play=_kept,
    expectations=on_every_kernel(always(None, Outcome.REFUSED)),
    topology="dns",
    demands=(way_to_service,),
)

FORGOTTEN: Final = Case(
    name="syn-before-service-forgotten",
    title="control: the same, and somebody deletes the entry before the client tries again",
    story=(
        "Without the entry the SYN is the first of its flow again and the rules are asked. The connection comes about"
        " from the very port that was led astray. So it was the entry and nothing else."
    ),
    threads=_THREADS,
    play=_forgotten,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED)),
    topology="dns",
    demands=(way_to_service,),
)

CASES: Final = (KEPT, FORGOTTEN)
