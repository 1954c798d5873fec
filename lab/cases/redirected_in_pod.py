# SPDX-License-Identifier: MIT
"""NAT inside the pod: a service mesh's REDIRECT, and the pod's own conntrack judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED, DROPPED, RESET, Case, always, on_every_kernel
from lab.cases.demands import by_own_link
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.fixes import Protection
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario
from lab.scenario.roles import Roles, roles_in
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Family

_SIDECAR_PORT: Final = 15006  # where Istio's proxy takes what comes in

_REDIRECT: Final = """
table inet sidecar {
    chain prerouting {
        type nat hook prerouting priority dstnat;
        tcp dport PORT redirect to :SIDECAR
    }
}
"""

#: istio #36566, ISTIO_META_INVALID_DROP.
_DROP: Final = """
add chain inet sidecar invalid { type filter hook prerouting priority mangle; }
add rule inet sidecar invalid ct state invalid counter drop
"""


def _sidecar_roles(topology: Topology, family: Family, service: str | None = None) -> Roles:
    """The client talks to the pod's own address, and the pod is the node that translates."""
    roles = roles_in(topology, family, service)
    server, address = roles.servers[0]
    sidecar = SocketAddress(address.address, _SIDECAR_PORT)
    return dataclasses.replace(roles, node=server, servers=((server, sidecar),), service_address=address)


def _steps(offset: int, payload: bytes, rules: str) -> Callable[[ConnectionScenario], Awaitable[None]]:
    async def steps(scenario: ConnectionScenario) -> None:
        asked = scenario.roles.service_address
        assert asked is not None
        scenario.load(
            scenario.roles.node, rules.replace("PORT", str(asked.port)).replace("SIDECAR", str(_SIDECAR_PORT))
        )
        await scenario.establish()
        await scenario.inject(scenario.from_client(offset, payload))
        if not offset:
            scenario.expect_answer("")
        await scenario.go_on()

    return steps


def _expected(protection: Protection) -> Expectation:
    """The fixes are the node's: its drop comes first, but what it does not judge so is the pod's to judge."""
    judges = not (protection.is_liberal or protection.is_untracked)
    return DROPPED if protection.drops_forwarded and judges else RESET


CASE: Final = Case(
    name="redirected-in-pod",
    about_answers=False,
    title="the client's data far beyond the window, and the pod redirects its port to a sidecar",
    story=(
        "A service mesh redirects a pod's port to its proxy by NAT in the pod's own namespace. What the pod's conntrack"
        " calls INVALID is not redirected: it comes to a port without the connection, and the pod's kernel answers with"
        " a RST from the very address that the client talks to, so the client's connection is dead. The node's drop"
        " happens to help where it judges the packet too; a liberal conntrack on the node does not reach into the pod."
    ),
    threads=("istio/istio#36489", "istio/istio#36566"),
    scenario=ConnectionScenario,
    steps=_steps(FAR, b"far off", _REDIRECT),
    expectations=on_every_kernel(_expected),
    choose_roles=_sidecar_roles,
    demands=(by_own_link,),
)

CURED: Final = Case(
    name="redirected-in-pod-with-drop",
    about_answers=False,
    title="the same, and the pod drops INVALID packets in mangle PREROUTING",
    story=(
        "Istio's ISTIO_META_INVALID_DROP has the pod drop what is INVALID before it comes to a socket. No RST is sent,"
        " and the connection lives. It is the only fix that is where the judgement is, so it helps whatever the node"
        " does."
    ),
    threads=("istio/istio#36566",),
    scenario=ConnectionScenario,
    steps=_steps(FAR, b"far off", _REDIRECT + _DROP),
    expectations=on_every_kernel(always(Judgement.INVALID, Outcome.DROPPED, untracked=DROPPED)),
    choose_roles=_sidecar_roles,
    demands=(by_own_link,),
)

IN_WINDOW: Final = Case(
    name="redirected-in-pod-in-window",
    about_answers=False,
    title="control: an acknowledgement that the client might send, through the same redirect",
    story=(
        "The acknowledgement has the number that the client would send next, so the pod's conntrack accepts and"
        " redirects it. It comes to the sidecar's socket and changes nothing there. Were this connection to die, the"
        " redirect would be the culprit and not the window."
    ),
    threads=("istio/istio#36489",),
    scenario=ConnectionScenario,
    steps=_steps(0, b"", _REDIRECT),
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=ACCEPTED)),
    choose_roles=_sidecar_roles,
    demands=(by_own_link,),
)

CASES: Final = (CASE, CURED, IN_WINDOW)
