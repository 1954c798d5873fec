"""Every state that conntrack gives a packet, each brought about by a real one."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.cases.demands import alone, one_endpoint
from lab.conntrack.witness import counters
from lab.evidence.packet import TCP, SocketAddress
from lab.scenario import Stage

_ASIDE: Final = 9  # a port of the pod's that nobody listens at (discard, RFC 863)


def _words(stage: Stage, state: str) -> list[str]:
    """Return the flags of the segments that the node found in a state."""
    stage.recorder.read()
    judged = (one.packet.tcp for one in stage.recorder.judged if one.state == state and one.packet.protocol == TCP)
    return [tcp.flag_names for tcp in judged if tcp]


async def _play(stage: Stage) -> None:
    await stage.establish()
    # NEW and ESTABLISHED: the handshake, and all that comes after it.
    stage.expect("one NEW segment, the SYN", _words(stage, "new") == ["SYN"], _words(stage, "new"))
    answers = _words(stage, "established")
    stage.expect("ESTABLISHED from the answer on", answers[:2] == ["SYN,ACK", "ACK"], answers)
    # RELATED: an error about a segment of the connection.
    await stage.inject(stage.too_big_from_server(1400))
    stage.expect_counter("related", 1)
    # UNTRACKED: what a rule of the node's has excused, and the pod's answer to it.
    aside = stage.from_client(flags="S")
    pod = stage.server_end.own_address.address
    with stage.past_conntrack(_ASIDE):
        await stage.inject(dataclasses.replace(aside, destination=SocketAddress(pod, _ASIDE)))
    excused = _words(stage, "untracked")
    stage.expect("a SYN and a RST UNTRACKED", excused == ["SYN", "RST,ACK"], excused)
    counted = counters(stage.node.nft)["untracked"]  # IPv6's neighbours talk to each other untracked as well
    stage.expect("untracked counted 2 or more", counted >= len(excused) == 2, counted)
    stage.expect_counter("invalid", 0)
    # INVALID: it belongs to a connection, but conntrack will have none of it.
    await stage.inject(stage.from_server(0, b"broken", checksum=0x0BAD))
    stage.expect_reason("bad checksum")
    stage.expect_counter("invalid", 1)
    stage.expect_counter("new", 2)  # the SYN, and the lab's own first datagram that proves what is over
    await stage.go_on()


CASE: Final = Case(
    name="tour-of-states",
    title="NEW, ESTABLISHED, RELATED, UNTRACKED and INVALID, one after the other",
    story=(
        "A SYN is NEW, all that answers or follows it is ESTABLISHED, and an ICMP error about it is RELATED. What a "
        "notrack rule has excused is UNTRACKED, which no rule for INVALID matches. INVALID is the last packet alone, "
        "by its checksum: it leaks or is dropped, and the connection goes on."
    ),
    threads=("iptables-extensions(8), conntrack --ctstate", "net/netfilter/nf_conntrack_core.c, nf_conntrack_in"),
    play=_play,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
    demands=(alone, one_endpoint),  # all packets are counted, also the proofs of each endpoint
)
