"""An ICMP error: translated where conntrack knows the connection that it is about, lost where it does not."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, always, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import Stage
from lab.verdict import Outcome

_MTU: Final = 1300  # bytes; above the least that IPv6 takes (RFC 8200, 5: 1280)


def _quoted(stage: Stage, source: str) -> list[str]:
    """Return whom the errors that the client saw from an address were about."""
    errors = (one.packet.icmp for one in stage.seen(stage.cast.client, source=source, outgoing=False))
    return [str(error.quoted[1]) for error in errors if error and error.quoted]


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.too_big_from_server(_MTU))
    vip = stage.cast.service_address
    assert vip is not None
    about = _quoted(stage, vip.address)
    stage.expect("an ICMP error from the VIP, about what was sent to the VIP", about == [str(vip)], about)
    stage.expect(f"the client's path MTU {_MTU}", stage.path_mtu() == _MTU, stage.path_mtu())
    stage.expect_counter("related", 1)
    await stage.go_on()


async def _play_untracked(stage: Stage) -> None:
    await stage.establish()
    stage.forget_entry()
    before = stage.path_mtu()
    await stage.inject(stage.too_big_from_server(_MTU))
    stage.expect(f"the client's path MTU still {before}", stage.path_mtu() == before, stage.path_mtu())
    pod = stage.server_end.own_address
    about = _quoted(stage, pod.address)
    stage.expect("an error from the pod about the pod, or none", about == [str(pod)] * (not stage.unheard), about)
    stage.expect_counter("error", 1)
    stage.expect_counter("related", 0)
    counted = stage.statistics()["invalid"]
    stage.expect("none of it counted as invalid by conntrack -S", counted == 0, counted)
    # The client speaks first, so that the connection lives on and only the error is lost.
    await stage.client_speaks(judged=False)
    await stage.go_on()


CASE: Final = Case(
    name="icmp-error",
    title="a link behind the pod is too small for what the client sends, and says so",
    story=(
        "The error quotes a segment of the connection, so it is RELATED, and the node translates both: it comes from "
        "the VIP, and what it quotes went to the VIP. The client finds the connection that it is about and sends "
        "smaller segments from then on. No fix stands in its way."
    ),
    threads=("net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_inet_error", "RFC 1191", "RFC 8201"),
    play=_play,
    expectations=on_every_kernel(always(Judgement.RELATED, Outcome.DELIVERED)),
)

_UNTRACKED: Final = Case(
    name="icmp-error-without-entry",
    title="the same error, but the entry of the connection that it is about is gone",
    story=(
        "Conntrack finds no connection for the segment that is quoted, so the error is INVALID, though conntrack -S "
        "counts it as error and not as invalid. It comes from the pod about a segment to the pod, of which the client "
        "knows nothing, or the drop takes it. Either way the client goes on sending what the link cannot carry: a "
        "black hole, and no fix fills it."
    ),
    threads=("net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_inet_error", "RFC 2923, 2.1"),
    play=_play_untracked,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
    demands=(one_endpoint, not_masqueraded),
)

CASES: Final = (CASE, _UNTRACKED)
