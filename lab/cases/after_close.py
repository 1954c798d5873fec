# SPDX-License-Identifier: MIT
"""After the close: what a pod's stack still sends leaves the node with the pod's own address."""

from __future__ import annotations

from functools import partial
from typing import Final

from lab.cases.case import DROPPED, LEAKED, Case, Row, always, on_every_kernel, row
from lab.cases.demands import egress, no_way_back, way_out
from lab.evidence.judgement import Judgement
from lab.evidence.packet import FIN
from lab.scenario import ConnectionScenario
from lab.traffic.tcp import REQUEST
from lab.verdict import Outcome
from lab.vocabulary import Behaviour
from lab.wire.craft import Segment

#: As a network plugin writes it: who leaves the cluster has the node's address.
_MASQUERADE: Final = """
table inet plugin {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "OUTSIDE" masquerade
    }
}
"""


_egress: Final = partial(egress, port=80)


def _anyhow(judgement: Judgement, outcome: Outcome) -> Row:
    """Expect the same under every protection: what leaves the cluster is tracked on any node."""
    return always(judgement, outcome, untracked=None)


async def _connect(scenario: ConnectionScenario) -> None:
    scenario.load(scenario.roles.node, _MASQUERADE.replace("OUTSIDE", way_out(scenario.lab.topology, scenario.roles)))
    await scenario.establish(by_service=False)


def _late(scenario: ConnectionScenario) -> Segment:
    """Return what somebody outside sent before the pod's request came, and what is still under way."""
    return scenario.from_server(0, scenario.next_bytes(100), acknowledge=-len(REQUEST))


async def _steps_replaced(scenario: ConnectionScenario) -> None:
    await _connect(scenario)
    await scenario.client_vanishes()
    await scenario.provoke(_late(scenario))
    scenario.expect_reason("invalid rst")


async def _steps_reset(scenario: ConnectionScenario) -> None:
    await _connect(scenario)
    late = _late(scenario)
    await scenario.client_aborts()
    scenario.expect_entry(state="CLOSE", timeout=range(11))
    await scenario.provoke(late)


def _farewells(scenario: ConnectionScenario) -> int:
    sent = (one.packet.tcp for one in scenario.recorder.sightings if one.host == scenario.roles.client and one.outgoing)
    return sum(tcp is not None and bool(tcp.flags & FIN) for tcp in sent)


async def _steps_farewell(scenario: ConnectionScenario) -> None:
    await _connect(scenario)
    scenario.forget_entry()
    await scenario.client_leaves()
    outside = scenario.seen(scenario.roles.servers[0][0], source=scenario.roles.client_address, flags="F")
    scenario.expect("the pod's address outside, unless a rule dropped it", bool(outside) != bool(scenario.dropped()))
    scenario.expect_error(scenario.roles.servers[0][0], None)

    await scenario.until(lambda: _farewells(scenario) > 1, "the pod to send its FIN again")
    scenario.expect_no_entry()


async def _steps_more(scenario: ConnectionScenario) -> None:
    await _connect(scenario)
    scenario.forget_entry()
    await scenario.client_speaks()
    await scenario.go_on()


#: What leaves the cluster is tracked on any node, also where what stays in it is not.
_LEAKS: Final = row(LEAKED, DROPPED, LEAKED, untracked=None)

CASE: Final = Case(
    name="egress-late-reset",
    title="a pod is replaced by one with its address, while something from the world is still under way",
    story=(
        "The late segment is translated and comes to a pod without such a connection, whose kernel answers with a RST."
        " That is numbered as the segment acknowledged, below what the world has acknowledged since, so conntrack calls"
        " it INVALID, be_liberal or not. It leaves the node with the pod's own address, which the world should never"
        " see; the drop in FORWARD keeps it in."
    ),
    threads=("containernetworking/plugins#816", "cloudnativelabs/kube-router#709", "netfilter bugzilla 693"),
    scenario=ConnectionScenario,
    steps=_steps_replaced,
    expectations=on_every_kernel(_LEAKS),
    choose_roles=_egress,
    topology="uplink",
)

AFTER_RESET: Final = Case(
    name="egress-reset-again",
    title="the same late segment, but the pod itself has reset the connection before",
    story=(
        "The pod's RST has closed the entry, and the late segment makes its kernel send another one with an older"
        " number. Before Linux 5.14 that is INVALID and leaks the pod's address: RST one way, data the other. Since"
        " then (c4edc3ccbc63) conntrack believes every RST of an entry that is closing, and translates it."
    ),
    threads=("containernetworking/plugins#816", "moby/moby#18630", "torvalds/linux c4edc3ccbc63"),
    scenario=ConnectionScenario,
    steps=_steps_reset,
    expectations={
        # Told by 5.10: no kernel between 5.14 and 6.0 was seen.
        Behaviour.STRICT: _LEAKS,
        Behaviour.IGNORES_LATE: _anyhow(Judgement.ACCEPTED, Outcome.DELIVERED),
    },
    choose_roles=_egress,
    topology="uplink",
)

FAREWELL: Final = Case(
    name="egress-fin-unknown",
    title="a pod's connection to the world has lost its entry, and the pod closes it",
    story=(
        "A FIN begins no connection that conntrack would take up, so it is INVALID and leaves with the pod's own"
        " address. The world cannot answer that address, and would not know the connection: the pod sends its FIN again"
        " and again, and the other end believes in the connection as before. The drop hides the pod's address and cures"
        " nothing else."
    ),
    threads=("cloudnativelabs/kube-router#709", "netfilter bugzilla 693"),
    scenario=ConnectionScenario,
    steps=_steps_farewell,
    expectations=on_every_kernel(_anyhow(Judgement.INVALID, Outcome.STALLED)),
    choose_roles=_egress,
    topology="uplink",
    demands=(no_way_back,),
)

MORE: Final = Case(
    name="egress-data-unknown",
    title="control: the same lost entry, and the pod sends data instead",
    story=(
        "By nf_conntrack_tcp_loose=1 data is taken up as a connection that began earlier, so the node masquerades it"
        " anew. It gets the same port, for nobody else has it, and the world sees the connection that it knows. Only a"
        " FIN or a RST cannot find its way back into conntrack."
    ),
    threads=("cloudnativelabs/kube-router#709",),
    scenario=ConnectionScenario,
    steps=_steps_more,
    expectations=on_every_kernel(_anyhow(Judgement.NEW, Outcome.DELIVERED)),
    choose_roles=_egress,
    topology="uplink",
)

CASES: Final = (CASE, AFTER_RESET, FAREWELL, MORE)
