# SPDX-License-Identifier: MIT
"""Every state that conntrack gives a packet, each brought about by a real one."""

from __future__ import annotations

import dataclasses
from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, on_every_kernel
from lab.cases.demands import alone, one_endpoint
from lab.conntrack.witness import counters
from lab.evidence.packet import TCP, SocketAddress
from lab.scenario import ConnectionScenario

_ASIDE: Final = 9  # a port of the pod's that nobody listens at (discard, RFC 863)


def _words(scenario: ConnectionScenario, state: str) -> list[str]:
    """Return the flags of the segments that the node found in a state."""
    scenario.recorder.read()
    judged = (one.packet.tcp for one in scenario.recorder.judged if one.state == state and one.packet.protocol == TCP)
    return [tcp.flag_names for tcp in judged if tcp]


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    # NEW and ESTABLISHED: the handshake, and all that comes after it.
    scenario.expect("one NEW segment, the SYN", _words(scenario, "new") == ["SYN"], _words(scenario, "new"))
    answers = _words(scenario, "established")
    scenario.expect("ESTABLISHED from the answer on", answers[:2] == ["SYN,ACK", "ACK"], answers)
    # RELATED: an error about a segment of the connection.
    await scenario.inject(scenario.too_big_from_server(1400))
    scenario.expect_counter("related", 1)
    # UNTRACKED: what a rule of the node's has excused, and the pod's answer to it.
    aside = scenario.from_client(flags="S")
    pod = scenario.server_end.own_address.address
    with scenario.past_conntrack(_ASIDE):
        await scenario.inject(dataclasses.replace(aside, destination=SocketAddress(pod, _ASIDE)))
    excused = _words(scenario, "untracked")
    scenario.expect("a SYN and a RST UNTRACKED", excused == ["SYN", "RST,ACK"], excused)
    counted = counters(scenario.node.namespace)["untracked"]  # IPv6's neighbours talk to each other untracked as well
    scenario.expect("untracked counted 2 or more", counted >= len(excused) == 2, counted)
    scenario.expect_counter("invalid", 0)
    # INVALID: it belongs to a connection, but conntrack will have none of it.
    await scenario.inject(scenario.from_server(0, b"broken", checksum=0x0BAD))
    scenario.expect_reason("bad checksum")
    scenario.expect_counter("invalid", 1)
    scenario.expect_counter("new", 2)  # the SYN, and the lab's own first datagram that proves what is over
    await scenario.go_on()


CASE: Final = Case(
    name="tour-of-states",
    title="NEW, ESTABLISHED, RELATED, UNTRACKED and INVALID, one after the other",
    story=(
        "A SYN is NEW, all that answers or follows it is ESTABLISHED, and an ICMP error about it is RELATED. What a "
        "notrack rule has excused is UNTRACKED, which no rule for INVALID matches. INVALID is the last packet alone, "
        "by its checksum: it leaks or is dropped, and the connection goes on."
    ),
    threads=("iptables-extensions(8), conntrack --ctstate", "net/netfilter/nf_conntrack_core.c, nf_conntrack_in"),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
    demands=(alone, one_endpoint),  # all packets are counted, also the proofs of each endpoint
)
