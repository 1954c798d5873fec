"""The other direction: what the client sends is INVALID, and the VIP is an address that nobody has."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED, DROPPED, LEAKED, Case, always, on_every_kernel, row
from lab.conntrack.witness import Judgement
from lab.stage import Stage
from lab.verdict import Outcome

_UNREACHABLE: Final = "no way to the VIP: the node says so by ICMP, unless a rule dropped the segment"


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_client(FAR, b"far off"))
    stage.expect_error(stage.cast.client, None)
    await stage.go_on()


async def _play_without_way(stage: Stage) -> None:
    await _play(stage)
    unanswered = stage.unheard and not stage.dropped()
    stage.expect(_UNREACHABLE, stage.unreachable == unanswered)


async def _play_strictly(stage: Stage) -> None:
    await stage.establish()
    stage.set_node_sysctl("net/netfilter/nf_conntrack_tcp_loose", 0)
    stage.forget_entry()
    await stage.client_speaks()
    stage.expect(_UNREACHABLE, stage.unreachable != bool(stage.dropped()))
    stage.expect_error(stage.cast.client, None)
    soft = stage.client_end.soft_error
    stage.expect("ENETUNREACH of the client's socket, once", (soft == "ENETUNREACH") == stage.unreachable, soft)


CASE: Final = Case(
    name="client-beyond-window",
    title="the client's data far beyond the server's window, and the node has no default route",
    story=(
        "What is INVALID on its way to the service keeps the VIP as its destination, which no host has. The node has no"
        " route there either: it answers with ICMP network unreachable, before FORWARD and its drop. The client's stack"
        " finds the quoted number to be none of its own and goes on; where such a segment is real, it is lost."
    ),
    threads=("kubernetes/kubernetes#119887", "kubeovn/kube-ovn#1705"),
    play=_play_without_way,
    expectations=on_every_kernel(row(DROPPED, DROPPED, ACCEPTED)),
    topology="kube-proxy",
)

ROUTED: Final = Case(
    name="client-beyond-window-routed",
    title="the same, and the node has a default route, as nodes have",
    story=(
        "The node forwards the segment with the VIP as its destination to where its default route leads: out of the"
        " cluster. Nobody there answers, so nothing is reset, but what the client sent to a service is seen by the"
        " world. Since it is forwarded, kube-proxy's drop keeps it in; a real segment is lost either way, unless"
        " conntrack is liberal."
    ),
    threads=("kubernetes/kubernetes#119887", "kubeovn/kube-ovn#1705"),
    play=_play,
    expectations=on_every_kernel(row(LEAKED, DROPPED, ACCEPTED)),
    topology="uplink",
)

STRICTLY: Final = Case(
    name="client-unknown-strictly",
    title="the entry is deleted, nf_conntrack_tcp_loose=0, and the client sends next",
    story=(
        "Conntrack takes up no connection in its middle, so the client's own segment is INVALID, is not translated and"
        " has no way. The client's stack knows the number in the ICMP error and tells its program ENETUNREACH if that"
        " asks, but it gives up no established connection for it (RFC 1122, 4.2.3.9). It sends again until its timers"
        " end it, whatever the node drops and however liberal it is."
    ),
    threads=("kubernetes/kubernetes#100698", "Documentation/networking/nf_conntrack-sysctl.rst"),
    play=_play_strictly,
    expectations=on_every_kernel(always(Judgement.INVALID, Outcome.STALLED)),
    topology="kube-proxy",
)

CASES: Final = (CASE, ROUTED, STRICTLY)
