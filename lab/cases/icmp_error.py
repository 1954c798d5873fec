# SPDX-License-Identifier: MIT
"""An ICMP error: translated where conntrack knows the connection that it is about, lost where it does not."""

from __future__ import annotations

from typing import Final

from lab.cases.case import LEAKS_UNLESS_DROPPED, Case, always, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.evidence.judgement import Judgement
from lab.scenario import ConnectionScenario
from lab.verdict import Outcome

_MTU: Final = 1300  # bytes; above the least that IPv6 takes (RFC 8200, 5: 1280)


def quoted_by(scenario: ConnectionScenario, source: str) -> list[str]:
    """Return whom the errors that the client saw from an address were about."""
    errors = (one.packet.icmp for one in scenario.seen(scenario.roles.client, source=source, outgoing=False))
    return [str(error.quoted[1]) for error in errors if error and error.quoted]


async def _steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.too_big_from_server(_MTU))
    vip = scenario.roles.service_address
    assert vip is not None
    about = quoted_by(scenario, vip.address)
    scenario.expect("an ICMP error from the VIP, about what was sent to the VIP", about == [str(vip)], about)
    scenario.expect(f"the client's path MTU {_MTU}", scenario.path_mtu() == _MTU, scenario.path_mtu())
    scenario.expect_counter("related", 1)
    await scenario.go_on()


async def _steps_untracked(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    scenario.forget_entry()
    before = scenario.path_mtu()
    await scenario.inject(scenario.too_big_from_server(_MTU))
    scenario.expect(f"the client's path MTU still {before}", scenario.path_mtu() == before, scenario.path_mtu())
    pod = scenario.server_end.own_address
    about = quoted_by(scenario, pod.address)
    scenario.expect("an error from the pod about the pod, or none", about == [str(pod)] * (not scenario.unheard), about)
    scenario.expect_counter("error", 1)
    scenario.expect_counter("related", 0)
    counted = scenario.statistics()["invalid"]
    scenario.expect("none of it counted as invalid by conntrack -S", counted == 0, counted)
    # The client speaks first, so that the connection lives on and only the error is lost.
    await scenario.client_speaks(judged=False)
    await scenario.go_on()


CASE: Final = Case(
    name="icmp-error",
    title="a link behind the pod is too small for what the client sends, and says so",
    story=(
        "The error quotes a segment of the connection, so it is RELATED, and the node translates both: it comes from "
        "the VIP, and what it quotes went to the VIP. The client finds the connection that it is about and sends "
        "smaller segments from then on. No fix stands in its way."
    ),
    threads=("net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_inet_error", "RFC 1191", "RFC 8201"),
    scenario=ConnectionScenario,
    steps=_steps,
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
    scenario=ConnectionScenario,
    steps=_steps_untracked,
    expectations=on_every_kernel(LEAKS_UNLESS_DROPPED),
    demands=(one_endpoint, not_masqueraded),
)

CASES: Final = (CASE, _UNTRACKED)
