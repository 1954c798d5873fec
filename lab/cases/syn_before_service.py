"""A SYN comes before its service: whoever tries again from the same port is led past the service."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, always, on_every_kernel, unless_dropped
from lab.cases.demands import beyond, to_vips, way_to_service
from lab.scenario import RefusedError, Stage
from lab.verdict import Outcome

_THREADS: Final = (
    "kubernetes/kubernetes#48719",
    "kubernetes/kubernetes#101607",
    "kubernetes/kubernetes#102669",
    "kubernetes/kubernetes#122692",
)


async def _service_comes(stage: Stage) -> None:
    services, slices = stage.lab.services, stage.lab.endpoint_slices
    stage.lab.sync((), ())
    with suppress(RefusedError):
        await stage.establish()
    outside, vip = beyond(stage.lab.topology, stage.cast), stage.cast.service_address
    if to_vips(stage.lab.topology, stage.cast).drops_unallocated:
        stage.expect_no_entry()
        await stage.expect_nothing(outside, destination=vip)
    else:
        stage.expect_entry(state="SYN_SENT", assured=False, timeout=range(100, 121))
        await stage.expect_packet(outside, destination=vip, flags="S", outgoing=False)
    stage.lab.sync(services, slices)


async def _connect(stage: Stage) -> None:
    await stage.establish()
    await stage.server_speaks()
    await stage.go_on()


async def _kept(stage: Stage) -> None:
    await _service_comes(stage)
    if not to_vips(stage.lab.topology, stage.cast).drops_unallocated:
        stage.expect_entry(state="SYN_SENT", assured=False)
    await _connect(stage)


async def _forgotten(stage: Stage) -> None:
    await _service_comes(stage)
    if stage.entry() is not None:  # a node that drops the SYN remembers nothing, and the checks have said so
        stage.forget_entry()
    await _connect(stage)


KEPT: Final = Case(
    name="syn-before-service",
    title="a client connects before the service is there, and tries again from the same port when it is",
    story=(
        "The first SYN finds no rule for the VIP and leaves by the default route; its entry waits two minutes for an"
        " answer. Every further SYN from that port belongs to this entry, so it goes the same way without translation,"
        " though the service is there by now; in nftables mode it is refused on the node, for the VIP is in use."
        " kube-proxy deletes such entries of UDP and not of TCP, whose clients mostly take another port. From v1.33 on"
        " nftables mode drops the first SYN, where the cluster's ServiceCIDRs hold the VIP: no entry stays, and the"
        " next SYN is answered."
    ),
    threads=_THREADS,
    play=_kept,
    expectations=on_every_kernel(unless_dropped(always(None, Outcome.REFUSED), dropped=ACCEPTED_ALWAYS)),
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
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    topology="dns",
    demands=(way_to_service,),
)

CASES: Final = (KEPT, FORGOTTEN)
