"""Asymmetric routes: the node sees the SYN,ACK first, and the drop makes a time-out of what worked."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import Case, on_every_kernel
from lab.cast import Cast, cast
from lab.conntrack.witness import Judgement
from lab.fixes import Protection
from lab.result import Expectation
from lab.stage import Stage
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.words import Family


async def _play(stage: Stage) -> None:
    try:
        await stage.establish(by_service=False)
    finally:
        judged = stage.judgements(source=stage.cast.servers[0][1], flags="SA")
        no_beginning = set(judged) in ({Judgement.INVALID}, {Judgement.UNTRACKED})
        stage.expect("no word of conntrack on the SYN,ACK but INVALID or UNTRACKED", no_beginning, judged)
    await stage.server_speaks()
    await stage.go_on()


def _one_way(topology: Topology, family: Family) -> Cast:
    return dataclasses.replace(cast(topology, family), crosses_both_ways=False)


def _expected(protection: Protection) -> Expectation:
    if protection.is_untracked:
        return Expectation(Judgement.UNTRACKED, Outcome.DELIVERED)
    if protection.drops_forwarded:
        return Expectation(None, Outcome.REFUSED)
    return Expectation(Judgement.NEW, Outcome.DELIVERED)


CASE: Final = Case(
    name="asymmetric-route",
    title="the client's packets take another way, so that the node sees the server's answers alone",
    story=(
        "A SYN,ACK begins no connection that conntrack knows, so it is INVALID, be_liberal or not: that is about the"
        " window of an entry, and there is none. Without the drop it passes, and the data behind is picked up as NEW;"
        " with the drop every handshake times out. What helps is to have no such rule, which kube-proxy from v1.29 on"
        " leaves out where be_liberal was set before, or to keep these packets out of conntrack."
    ),
    threads=("kubernetes/kubernetes#94861", "projectcalico/calico#7434", "projectcalico/felix#1248"),
    play=_play,
    expectations=on_every_kernel(_expected),
    cast=_one_way,
    topology="asymmetric",
)
