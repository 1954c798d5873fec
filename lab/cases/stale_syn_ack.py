"""The answer to an older SYN comes to a newer one."""

from __future__ import annotations

from typing import Final

from lab.cases.case import IGNORED_UNLESS_LIBERAL, LEAKS_UNLESS_LIBERAL, Case
from lab.cases.demands import one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import Scripted
from lab.verdict import decide_packet
from lab.vocabulary import Behaviour

_LATER: Final = 4_000_000  # how far initial sequence numbers are apart; more than any window in the script


async def _play(stage: Scripted) -> None:
    await stage.handshake()
    stage.forget_entry()
    stage.client.begin(_LATER)
    await stage.ask()
    await stage.expect_words(Judgement.NEW)
    stage.server.begin(_LATER)
    stage.judge(stage.server.syn_ack(acknowledge=1 - _LATER))
    await stage.heard()
    stage.server.begin(2 * _LATER)
    stage.server.syn_ack()
    fresh = await stage.word()
    stage.find(f"behind a stale SYN,ACK the right one is {fresh}")
    if fresh is not Judgement.INVALID:
        stage.client.ack()
        await stage.expect_words(Judgement.ACCEPTED)
        stage.expect_entry(state="ESTABLISHED")


CASE: Final = Case(
    name="stale-syn-ack",
    title="a client uses its port again, and the answer is to its last connection's SYN",
    story=(
        "The SYN,ACK acknowledges a number far below the new SYN. Up to Linux 6.0 that is INVALID, and so is the "
        "right answer after it, for the numbers of the stale one have stayed: the port connects no more until the "
        "entry is gone. From 6.1 on the stale one is ignored, the client may reset it, and the right one begins the "
        "server's side anew."
    ),
    threads=(
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_in_window",
        "torvalds/linux 6e250dcbff1d",
    ),
    play=_play,
    demands=(one_endpoint,),
    expectations={
        Behaviour.STRICT: LEAKS_UNLESS_LIBERAL,
        Behaviour.IGNORES_LATE: IGNORED_UNLESS_LIBERAL,
    },
    stage=Scripted,
    decide=decide_packet,
)
