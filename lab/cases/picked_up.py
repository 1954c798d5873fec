"""Conntrack sees a connection for the first time when it is in its middle."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED_ALWAYS, Case, always, on_every_kernel, row
from lab.cases.demands import alone, not_masqueraded, one_endpoint
from lab.cases.entry_deleted_strictly import LOOSE
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SYN
from lab.results.result import Expectation
from lab.scenario import Stage
from lab.verdict import Outcome


async def _establish_unseen(stage: Stage) -> None:
    """Connect straight to the pod before any rule of the node asks for conntrack."""
    with stage.past_conntrack(stage.cast.servers[0][1].port):
        await stage.establish(by_service=False)
    stage.recorder.read()
    handshake = [one.state for one in stage.recorder.judged if one.packet.tcp and one.packet.tcp.flags & SYN]
    # Each node on the way sees both of its packets.
    stage.expect("conntrack saw no handshake", len(handshake) >= 2 and set(handshake) == {"untracked"}, handshake)


async def _play(stage: Stage) -> None:
    await _establish_unseen(stage)
    await stage.client_speaks(judged=False)
    await stage.inject(stage.from_server(FAR, b"far off"))
    await stage.go_on()


async def _play_strictly(stage: Stage) -> None:
    await _establish_unseen(stage)
    stage.set_node_sysctl(LOOSE, 0)
    await stage.client_speaks()
    stage.expect_no_entry()
    if stage.unheard:
        await stage.retransmissions(1)
    else:
        await stage.go_on()


async def _play_by_service(stage: Stage) -> None:
    await stage.establish()
    stage.forget_entry()
    await stage.client_speaks(judged=False)
    stage.expect_entry(state="ESTABLISHED")
    await stage.inject(stage.from_server(FAR, b"far off"))
    await stage.go_on()


_UNTRACKED: Final = Expectation(Judgement.UNTRACKED, Outcome.DELIVERED)
_UNTRANSLATED: Final = Expectation(Judgement.INVALID, Outcome.DELIVERED)
_STALLED: Final = Expectation(Judgement.INVALID, Outcome.STALLED)

CASE: Final = Case(
    name="picked-up",
    about_answers=False,
    title="a connection to the pod that is older than the node's rules, and then data far beyond the window",
    story=(
        "Conntrack did not see the handshake and knows no window scale, so it takes the connection up where it is "
        "and is liberal about both its sides for good (tcp_new). Data that would be INVALID in any other connection is "
        "accepted in this one. Whoever tries the bug on a connection that is older than the rules will not see it."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_new", "Documentation/networking/nf_conntrack-sysctl.rst"),
    play=_play,
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=_UNTRACKED)),
)

_BY_SERVICE: Final = Case(
    name="picked-up-by-service",
    title="the entry was deleted, the client has spoken, and then data far beyond the window",
    story=(
        "A connection by the VIP that conntrack took up again after its entry was deleted is liberal as well. So the "
        "packet that kills a fresh connection is accepted, translated and harmless here. A node whose table was once "
        "flushed is cured of the bug until its clients connect anew."
    ),
    threads=("net/netfilter/nf_conntrack_proto_tcp.c, tcp_new", "kubernetes/kubernetes#100698"),
    play=_play_by_service,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    demands=(alone, one_endpoint, not_masqueraded),
)

_STRICTLY: Final = Case(
    name="picked-up-strictly",
    about_answers=False,
    title="a connection to the pod that is older than the node's rules, and nf_conntrack_tcp_loose=0",
    story=(
        "With the sysctl conntrack takes nothing up in its middle, and every segment of the connection is INVALID. "
        "As nothing has to be translated, it goes on as if nothing had been, and being liberal changes nothing. With "
        "the drop it hangs: here the fix is what kills."
    ),
    threads=("kubernetes/kubernetes#94861", "Documentation/networking/nf_conntrack-sysctl.rst"),
    play=_play_strictly,
    expectations=on_every_kernel(row(_UNTRANSLATED, _STALLED, _UNTRANSLATED, untracked=_UNTRACKED)),
)

CASES: Final = (CASE, _BY_SERVICE, _STRICTLY)
